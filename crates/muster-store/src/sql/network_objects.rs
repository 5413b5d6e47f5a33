//! Fleet Server hosts, proxies and download sources.

use super::statements;

macro_rules! columns {
    () => {
        "kind, id, space, name, is_default, fields, created_at, updated_at"
    };
}

statements! {
    /// Inserts or updates an object.
    PUT = concat!(
        "INSERT INTO network_objects (", columns!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
         ON CONFLICT (kind, id) DO UPDATE SET name = excluded.name, is_default = excluded.is_default, \
         fields = excluded.fields, created_at = excluded.created_at, updated_at = excluded.updated_at"
    );
    /// Selects whether another object of the kind and the space has the name.
    NAME_TAKEN = "SELECT 1 FROM network_objects WHERE space = $1 AND kind = $2 AND name = $3 AND id <> $4";
    /// Clears the default of other objects of the kind and the space.
    CLEAR_DEFAULT = "UPDATE network_objects SET is_default = 0 \
        WHERE space = $1 AND kind = $2 AND is_default = 1 AND id <> $3";
    /// Deletes an object.
    DELETE = "DELETE FROM network_objects WHERE kind = $1 AND id = $2";
    /// Selects an object.
    BY_ID = concat!("SELECT ", columns!(), " FROM network_objects WHERE kind = $1 AND id = $2");
    /// Selects the objects of a space by kind and name.
    LIST_IN = concat!(
        "SELECT ", columns!(), " FROM network_objects WHERE space = $1 ORDER BY kind, lower(name), name"
    );
}
