-- Whether this connection is of another role ($3), or has these settings.
SELECT
    current_user <> $3::text
    OR NOT EXISTS (
        SELECT FROM unnest($1::text[], $2::text[]) AS s (name, value) WHERE current_setting(s.name) <> s.value
    );
