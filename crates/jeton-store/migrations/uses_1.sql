-- Who used which identity for what, and when first and last. Losing it loses that and nothing else.
CREATE TABLE uses (
  identity BLOB NOT NULL, principal TEXT NOT NULL, target TEXT NOT NULL, first_used INTEGER NOT NULL, last_used INTEGER NOT NULL,
  PRIMARY KEY (identity, principal, target)
) STRICT;
CREATE INDEX uses_by_last ON uses (last_used);
