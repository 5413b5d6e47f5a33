-- Components that agents reported last, many to a page, before they come into agent_documents. A ring: the row with
-- the lowest seq is overwritten next, after what is still the newest of its entries was brought into its place.
CREATE TABLE recent_components (
    slot INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    entries BLOB NOT NULL
) STRICT;
