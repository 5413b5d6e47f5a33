//! Queries of paged lists.

// A macro and not a flattened struct, because serde can't read a flattened number from a query string.
/// Declares the query of a list: its own fields, all of them optional, and those of its pages. `with search_after` adds
/// the position behind the last row of a page, for lists that grow without limit.
macro_rules! list_query {
    (
        $(#[$doc:meta])*
        $name:ident, first page $first:literal, with search_after
        { $($(#[$about:meta])* $field:ident: $type:ty,)* }
    ) => {
        list_query! {
            $(#[$doc])*
            $name, first page $first {
                $($(#[$about])* $field: $type,)*
                /// `nextSearchAfter` of the previous response; can't be combined with `page`.
                search_after: String,
            }
        }
    };
    (
        $(#[$doc:meta])*
        $name:ident, first page $first:literal
        { $($(#[$about:meta])* $field:ident: $type:ty,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema, serde::Serialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            #[doc = concat!("Page number, from ", $first, ".")]
            #[serde(skip_serializing_if = "Option::is_none")]
            pub page: Option<u32>,
            /// Rows per page, default 20.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub per_page: Option<u32>,
            $($(#[$about])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
        }
    };
}

pub(super) use list_query;
