//! Successful responses: always 200, with `{item}`, `{items}` or `{items, total, page, perPage}`.

use axum::Json;
use muster_protocol::management::envelope::Whole;
use muster_protocol::management::{Item, Items};
use muster_store::query::Listed;

use super::error::ApiResult;
use super::query::Paging;

/// `perPage` of lists that are never paged.
const UNPAGED: u32 = 10_000;

/// A JSON response, or an error.
pub type Answer<T> = ApiResult<Json<T>>;

/// Creates `{item}`.
pub fn item<T>(item: T) -> Json<Item<T>> {
    Json(Item { item })
}

/// Creates `{items}`: a complete list.
pub fn whole<T>(items: Vec<T>) -> Json<Whole<T>> {
    Json(Whole { items })
}

/// Creates a list that is never paged, in the format of a page (MG §13).
pub fn every<T>(items: Vec<T>) -> Json<Items<T>> {
    let total = items.len() as u64;
    Json(Items { items, total, unreadable: 0, page: 1, per_page: UNPAGED, next_search_after: None })
}

/// Creates a page of a list.
pub fn page<T>(items: Vec<T>, total: u64, paging: &Paging) -> Json<Items<T>> {
    page_with_next(Listed { items, total, unreadable: 0 }, paging, None)
}

/// Creates a page with the cursor of the next one.
pub fn page_with_next<T>(found: Listed<T>, paging: &Paging, next: Option<String>) -> Json<Items<T>> {
    let Listed { items, total, unreadable } = found;
    Json(Items { items, total, unreadable, page: paging.page, per_page: paging.per_page, next_search_after: next })
}
