-- Names as the code has them: a batch meets a conflict, and commands have attempts.
ALTER FUNCTION nodeledger.outrun(text) RENAME TO conflict;
ALTER TABLE nodeledger.attempt RENAME COLUMN tries TO attempts;
