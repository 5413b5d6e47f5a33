//! Successful responses: always 200, with `{item}`, `{items}` or `{items, total, page, perPage}`.

use axum::Json;
use muster_protocol::management::envelope::Whole;
use muster_protocol::management::{Item, Items};

use super::error::ApiResult;
use super::query::Paging;

/// A JSON response, or an error.
pub type Answer<T> = ApiResult<Json<T>>;

/// `{item}`.
pub fn item<T>(item: T) -> Json<Item<T>> {
    Json(Item { item })
}

/// `{items}`: a complete list.
pub fn whole<T>(items: Vec<T>) -> Json<Whole<T>> {
    Json(Whole { items })
}

/// A page of a list.
pub fn page<T>(items: Vec<T>, total: u64, paging: &Paging) -> Json<Items<T>> {
    // For lists that are never long enough for a cursor.
    page_with_next(items, total, paging, None)
}

/// A page of a list with the cursor of the next page.
pub fn page_with_next<T>(items: Vec<T>, total: u64, paging: &Paging, next: Option<String>) -> Json<Items<T>> {
    Json(Items { items, total, page: paging.page, per_page: paging.per_page, next_search_after: next })
}
