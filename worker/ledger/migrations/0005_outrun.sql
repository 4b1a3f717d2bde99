-- Ends a statement whose batch another worker outran; all that it wrote is undone.
CREATE FUNCTION nodeledger.outrun(what text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    RAISE EXCEPTION 'another worker changed % that this batch stands on', what
        USING ERRCODE = 'serialization_failure';
END
$$;
REVOKE EXECUTE ON FUNCTION nodeledger.outrun FROM PUBLIC;
