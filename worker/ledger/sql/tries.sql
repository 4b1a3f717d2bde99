-- Commands that were begun and not finished.
SELECT command, tries FROM nodeledger.attempt WHERE command = ANY ($1::uuid[])
