//! Translation of the shared schema and statements into PostgreSQL's dialect.
//!
//! The schema exists once, in SQLite's dialect (`migrations`), and its types are replaced here, so that both engines
//! have the same tables. Both compare strings byte by byte (collation `C`).

use std::borrow::Cow;

use crate::sql::dialect::{ADD_COUNTS, FOLD_COUNTS, INSERT_CHANGES, INSERT_EVENTS, targets};
use crate::sql::{locked, now};

/// Tables that only this engine has, created before the first migration: counters whose numbers ascend in the order of
/// commits, rows that writers lock, and ids of committed transactions, which show the outcome of a commit whose reply
/// was lost. The function is what the triggers of the schema run.
pub(super) const OWN_TABLES: &str = r"
CREATE TABLE counters (name TEXT NOT NULL PRIMARY KEY, value BIGINT NOT NULL) WITH (fillfactor = 10);
INSERT INTO counters (name, value) VALUES ('actions', 0), ('changes', 0), ('events', 0);
CREATE FUNCTION next_in_commit_order(TEXT) RETURNS BIGINT LANGUAGE sql VOLATILE AS
    'UPDATE counters SET value = value + 1 WHERE name = $1 RETURNING value';
CREATE SEQUENCE audit_order;
CREATE TABLE locks (name TEXT NOT NULL PRIMARY KEY);
INSERT INTO locks (name) VALUES ('references'), ('uploads'), ('identity'), ('spaces'), ('certificates'), ('software'), ('runs');
CREATE TABLE commits (id TEXT NOT NULL PRIMARY KEY, committed_at TIMESTAMPTZ NOT NULL DEFAULT now());
CREATE INDEX commits_by_time ON commits (committed_at);
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION '%', TG_ARGV[0]; END$$;
";

/// Creates the index in which parts of texts are found, wherever the extension with trigrams is; after the first migration. Without
/// the extension, or the right to use it, all texts are read. In the schema that everybody may use: other fleets of the database may
/// not use that of this one.
pub(super) const TEXT_INDEX: &str = r"
DO $$
DECLARE place TEXT;
BEGIN
    BEGIN
        CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA public;
    EXCEPTION WHEN OTHERS THEN
        -- Another fleet may have created it at this moment.
        NULL;
    END;
    SELECT nspname INTO place FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'pg_trgm';
    EXECUTE format('CREATE INDEX agent_texts_by_part ON agent_texts USING gin (search %I.gin_trgm_ops)', place);
EXCEPTION WHEN OTHERS THEN
    RAISE LOG 'muster: no index of trigrams: %', SQLERRM;
END $$;
";
/// Selects whether the index exists.
pub(super) const HAS_TEXT_INDEX: &str =
    "SELECT 1 FROM pg_indexes WHERE schemaname = current_schema() AND indexname = 'agent_texts_by_part'";

/// Translates the text of a migration.
pub(super) fn schema(text: &str) -> String {
    let mut translated = String::with_capacity(text.len() * 5 / 4);
    let mut table = String::new();
    for line in text.lines() {
        // Comments are dropped: a semicolon or a quote in one must not confuse the translation.
        if line.trim_start().starts_with("--") {
            continue;
        }
        if line.starts_with("CREATE TRIGGER ") {
            translated.extend(trigger(line));
            continue;
        }
        // The name of the table is remembered for the default of its number, which is on a later line.
        if let Some(rest) = line.strip_prefix("CREATE TABLE ") {
            table = rest.split(' ').next().unwrap_or_default().to_owned();
        }
        // The audit log is ordered for people only: nodes must not wait for each other to append to it.
        let number = match table.as_str() {
            "audit_events" => "BIGINT NOT NULL PRIMARY KEY DEFAULT nextval('audit_order')".to_owned(),
            _ => format!("BIGINT NOT NULL PRIMARY KEY DEFAULT next_in_commit_order('{table}')"),
        };
        let line = line
            // The primary key first: the next line would replace the INTEGER in it.
            .replace("INTEGER PRIMARY KEY AUTOINCREMENT", &number)
            .replace(" INTEGER", " BIGINT")
            .replace(" BLOB", " BYTEA")
            // Byte by byte, as SQLite compares: sort orders and cursors are the same on both engines.
            .replace(" TEXT", " TEXT COLLATE \"C\"")
            .replace(") STRICT, WITHOUT ROWID;", ");")
            .replace(") STRICT;", ");");
        translated.push_str(&line);
        translated.push('\n');
    }
    translated
}

/// Translates a trigger that rejects a statement. `None` for triggers on INSERT, which prevent that rows are replaced: this engine has
/// no REPLACE, and `ON CONFLICT DO UPDATE` fires the trigger on UPDATE.
fn trigger(line: &str) -> Option<String> {
    let (head, body) = line.split_once(" BEGIN SELECT RAISE(ABORT, ")?;
    let message = body.strip_suffix("); END;")?;
    // TRUNCATE does not fire triggers on DELETE.
    let head = head.replace(" BEFORE DELETE ON ", " BEFORE DELETE OR TRUNCATE ON ");
    (!head.contains(" BEFORE INSERT ON "))
        .then(|| format!("{head} FOR EACH STATEMENT EXECUTE FUNCTION refuse_change({message});\n"))
}

/// Fragments that differ between the dialects.
const FRAGMENTS: &[(&str, &str)] = &[
    // The strings of a JSON list in a column. A list that is bound is an array.
    ("SELECT value FROM json_each(", "SELECT jsonb_array_elements_text(CAST(CAST("),
    // A literal has the database's own collation, which can't be compared with that of a column.
    ("'' AS policy_id", "'' COLLATE \"C\" AS policy_id"),
    (locked!(), "FOR UPDATE"),
    (
        targets!(),
        "SELECT value, CAST($1 AS BIGINT), ordinality - 1, 'queued' \
         FROM jsonb_array_elements_text(CAST(CAST($2 AS TEXT) AS JSONB)) WITH ORDINALITY AS list (value, ordinality)",
    ),
    // The counter's row is updated once, by the last statement before the commit, so that other nodes wait for it as briefly
    // as possible.
    (
        INSERT_CHANGES,
        "WITH added AS (SELECT value, ordinality \
             FROM jsonb_array_elements(CAST(CAST($1 AS TEXT) AS JSONB)) WITH ORDINALITY AS list (value, ordinality)), \
         taken AS (UPDATE counters SET value = counters.value + (SELECT count(*) FROM added) \
             WHERE name = 'changes' RETURNING counters.value AS last), \
         inserted AS (INSERT INTO changes (seq, kind, subject, deleted_from) \
             SELECT last - (SELECT count(*) FROM added) + ordinality, value ->> 0, value ->> 1, value ->> 2 FROM added, taken) \
         SELECT last FROM taken",
    ),
    (
        INSERT_EVENTS,
        "WITH added AS (SELECT value, ordinality \
             FROM jsonb_array_elements(CAST(CAST($1 AS TEXT) AS JSONB)) WITH ORDINALITY AS list (value, ordinality)), \
         taken AS (UPDATE counters SET value = counters.value + (SELECT count(*) FROM added) \
             WHERE name = 'events' RETURNING counters.value AS last) \
         INSERT INTO events (seq, at, space, subject, document) \
             SELECT last - (SELECT count(*) FROM added) + ordinality, CAST(value ->> 0 AS BIGINT), value ->> 1, value ->> 2, \
             value ->> 3 \
             FROM added, taken",
    ),
    (
        ADD_COUNTS,
        "INSERT INTO agent_counts (node, space, tag, policy_id, status, number) \
             SELECT CAST($1 AS TEXT), value ->> 0, value ->> 1, value ->> 2, value ->> 3, CAST(value ->> 4 AS BIGINT) \
             FROM jsonb_array_elements(CAST(CAST($2 AS TEXT) AS JSONB)) AS list (value) \
             ON CONFLICT (space, tag, policy_id, status, node) \
             DO UPDATE SET number = agent_counts.number + excluded.number",
    ),
    // Rows that a transaction has locked are left for the next time: waiting for a node that is about to be removed could
    // be mutual.
    (
        FOLD_COUNTS,
        "WITH folded AS (DELETE FROM agent_counts WHERE (space, tag, policy_id, status, node) IN \
             (SELECT space, tag, policy_id, status, node FROM agent_counts \
              WHERE node <> '' AND (number = 0 OR node NOT IN (SELECT id FROM nodes)) FOR UPDATE SKIP LOCKED) \
             RETURNING space, tag, policy_id, status, number) \
         INSERT INTO agent_counts (node, space, tag, policy_id, status, number) \
             SELECT '', space, tag, policy_id, status, CAST(sum(number) AS BIGINT) FROM folded \
             GROUP BY space, tag, policy_id, status HAVING sum(number) <> 0 \
             ON CONFLICT (space, tag, policy_id, status, node) \
             DO UPDATE SET number = agent_counts.number + excluded.number",
    ),
    (now!(), "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"),
];

/// Start of a condition with a list that is bound.
const BOUND_LIST: &str = "IN (SELECT value FROM json_each($";

/// Translates a statement.
pub(super) fn statement(text: &str) -> Cow<'_, str> {
    // Most statements need no change, and must not be copied for each call.
    if !FRAGMENTS.iter().any(|(ours, _)| text.contains(ours)) {
        return Cow::Borrowed(text);
    }
    let mut text = text.to_owned();
    while let Some(start) = text.find(BOUND_LIST) {
        let end = text[start..].find("))").map_or(text.len(), |end| start + end);
        // From the end to the start, so that the first replacement does not move the second.
        text.replace_range(end..text.len().min(end + 1), "");
        text.replace_range(start..start + BOUND_LIST.len() - 1, "= ANY (");
    }
    let (list, elements) = FRAGMENTS[0];
    while let Some(start) = text.find(list) {
        // The column is between the parentheses.
        let end = text[start..].find(')').map_or(text.len(), |end| start + end);
        text.replace_range(end..end, " AS TEXT) AS JSONB)");
        text.replace_range(start..start + list.len(), elements);
    }
    // The list is handled above, because its replacement needs the column between the parentheses.
    for (ours, theirs) in &FRAGMENTS[1..] {
        text = text.replace(ours, theirs);
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_bound_as_one_array() {
        let text = statement("SELECT id FROM t WHERE (a IN (SELECT value FROM json_each($1))) AND b = $2");
        assert_eq!(text, "SELECT id FROM t WHERE (a = ANY ($1)) AND b = $2");
        let text = statement("SELECT id FROM t WHERE a IN (SELECT value FROM json_each(t.names)) AND b = $1");
        let expected = "SELECT id FROM t WHERE a IN \
            (SELECT jsonb_array_elements_text(CAST(CAST(t.names AS TEXT) AS JSONB))) AND b = $1";
        assert_eq!(text, expected);
        assert!(matches!(statement("SELECT 1"), Cow::Borrowed(_)));
    }

    #[test]
    fn numbers_come_from_the_tables_own_counter() {
        let text =
            schema("CREATE TABLE t (\n    seq INTEGER PRIMARY KEY AUTOINCREMENT,\n    id TEXT NOT NULL\n) STRICT;\n");
        assert!(text.contains("DEFAULT next_in_commit_order('t')"), "{text}");
        assert!(text.contains("id TEXT COLLATE \"C\" NOT NULL\n);"), "{text}");
    }

    #[test]
    fn triggers_reject_whole_statements_and_truncate_too() {
        let text = schema("CREATE TRIGGER t BEFORE DELETE ON a BEGIN SELECT RAISE(ABORT, 'no'); END;\n");
        let expected = "CREATE TRIGGER t BEFORE DELETE OR TRUNCATE ON a FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('no');\n";
        assert_eq!(text, expected);
        let replace = "CREATE TRIGGER t BEFORE INSERT ON a WHEN 1 BEGIN SELECT RAISE(ABORT, 'no'); END;\n";
        assert_eq!(schema(replace), "");
    }
}
