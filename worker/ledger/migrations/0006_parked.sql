-- A command is parked exactly while its row waits. Both sides are checked at the
-- end of a transaction, of the few commands that are not simply new and answered.
CREATE FUNCTION nodeledger.check_parked() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    one uuid;
    said text;
BEGIN
    IF TG_TABLE_NAME = 'command' THEN
        one := NEW.id;
    ELSE
        one := coalesce(NEW.command, OLD.command);
    END IF;
    SELECT c.status INTO said FROM nodeledger.command AS c WHERE c.id = one;
    IF (said = 'parked') <> EXISTS (SELECT FROM nodeledger.parked_command AS p WHERE p.command = one) THEN
        RAISE check_violation USING
            MESSAGE = format('command %s is %s, and its parked row says otherwise', one, said),
            CONSTRAINT = 'a_command_is_parked_while_its_row_waits';
    END IF;
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER a_command_is_parked_while_its_row_waits
AFTER INSERT OR DELETE ON nodeledger.parked_command
DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION nodeledger.check_parked();

CREATE CONSTRAINT TRIGGER a_command_is_parked_while_its_row_waits
AFTER UPDATE OF status ON nodeledger.command
DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION nodeledger.check_parked();

-- Puts right what contradicts itself about parked commands; answers on how many
-- nodes and commands. One that was said to be dead while its row waits goes on
-- waiting, one that was answered waits no more, nodes are counted anew, and
-- those that nobody would ask are asked.
CREATE FUNCTION nodeledger.repair_parked() RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    names text[];
    part bigint;
    repaired bigint;
BEGIN
    names := ARRAY(
        SELECT n.name FROM nodeledger.node AS n
        WHERE n.parked <> (SELECT count(*) FROM nodeledger.parked_command AS p WHERE p.node = n.name AND p.blocking)
        UNION
        SELECT p.node
        FROM nodeledger.parked_command AS p
        JOIN nodeledger.command AS c ON c.id = p.command
        WHERE c.status <> 'parked'
    );
    PERFORM FROM nodeledger.node AS n WHERE n.name = ANY (names) ORDER BY n.id FOR UPDATE;
    UPDATE nodeledger.command AS c SET
        status = 'parked',
        outcome = ((c.outcome::jsonb - 'dead_letter') || '{"status": "parked"}')::text
    FROM nodeledger.parked_command AS p
    WHERE p.node = ANY (names) AND c.id = p.command AND c.status = 'dead';
    GET DIAGNOSTICS repaired = ROW_COUNT;
    DELETE FROM nodeledger.parked_command AS p USING nodeledger.command AS c
    WHERE p.node = ANY (names) AND c.id = p.command AND c.status IN ('applied', 'rejected');
    GET DIAGNOSTICS part = ROW_COUNT;
    repaired := repaired + part;
    UPDATE nodeledger.node AS n SET parked = x.waiting, generation = n.generation + 1
    FROM (
        SELECT m.id, count(p.seq) FILTER (WHERE p.blocking) AS waiting
        FROM nodeledger.node AS m
        LEFT JOIN nodeledger.parked_command AS p ON p.node = m.name
        WHERE m.name = ANY (names)
        GROUP BY m.id
    ) AS x
    WHERE n.id = x.id AND n.parked <> x.waiting;
    GET DIAGNOSTICS part = ROW_COUNT;
    repaired := repaired + part;
    INSERT INTO nodeledger.probe (node, next_at)
    SELECT DISTINCT p.node, now() FROM nodeledger.parked_command AS p ORDER BY p.node
    ON CONFLICT (node) DO NOTHING;
    GET DIAGNOSTICS part = ROW_COUNT;
    RETURN repaired + part;
END
$$;

REVOKE EXECUTE ON FUNCTION nodeledger.check_parked, nodeledger.repair_parked FROM PUBLIC;

SELECT nodeledger.repair_parked();
