-- Commands that were begun and not finished.
SELECT command, attempts FROM nodeledger.attempt WHERE command = ANY ($1::uuid[])
