-- Uploads whose time is over are looked for again and again.
CREATE INDEX uploads_by_age ON uploads (status, started_at, id);
