//! Answers: always 200, `{item}` or `{items, total, page, perPage}`.

use axum::Json;
use muster_protocol::management::envelope::Whole;
use muster_protocol::management::{Item, Items};

use super::error::ApiResult;
use super::query::Paging;

/// A JSON answer.
pub type Answer<T> = ApiResult<Json<T>>;

/// `{item}`.
pub fn item<T>(item: T) -> Json<Item<T>> {
    Json(Item { item })
}

/// `{items}`: all of them.
pub fn whole<T>(items: Vec<T>) -> Json<Whole<T>> {
    Json(Whole { items })
}

/// A page.
pub fn page<T>(items: Vec<T>, total: u64, paging: &Paging) -> Json<Items<T>> {
    Json(Items { items, total, page: paging.page, per_page: paging.per_page })
}
