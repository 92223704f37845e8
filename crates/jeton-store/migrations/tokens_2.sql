-- A revocation finds the tokens of one identity among all.
CREATE INDEX tokens_by_identity ON tokens (identity);
