//! Diagnostics of the components that speak the component protocol.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::model::Component;
use crate::protocol::line::Line;
use crate::protocol::messages::DiagnosticFile;

/// Total time for a component to return its diagnostics (AG §5.5).
const LIMIT: Duration = Duration::from_secs(20);
/// Maximum size of the files of all components, in bytes.
const CONTENT_MAX: usize = 4 << 20;
/// Maximum number of files of a unit or a component.
const FILES_MAX: usize = 64;

/// What a component, or one of its units, returned.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    /// The component, with the configuration that it runs with.
    pub component: Arc<Component>,
    /// Id of the unit; `None` for the component itself.
    pub unit: Option<String>,
    /// Its files, or why there are none.
    pub files: Result<Vec<File>, String>,
}

/// A file of diagnostics.
#[derive(Clone, Debug)]
pub struct File {
    /// The file as the component returned it.
    pub file: DiagnosticFile,
    /// Size of the content in bytes, if it was too large and was dropped.
    pub dropped: Option<usize>,
}

/// Collects the diagnostics of all components at the same time. The result is sorted.
pub(super) async fn collect(lines: Vec<Arc<Line>>) -> Vec<Diagnostics> {
    let share = CONTENT_MAX / lines.len().max(1);
    let mut tasks = JoinSet::new();
    for line in lines {
        tasks.spawn(async move { of_component(&line, share).await });
    }
    let mut all = Vec::new();
    while let Some(collected) = tasks.join_next().await {
        all.extend(collected.into_iter().flatten());
    }
    all.sort_by(|a, b| (&a.component.id, &a.unit).cmp(&(&b.component.id, &b.unit)));
    all
}

/// Asks for each unit and then for the component itself, as Elastic Agent does.
async fn of_component(line: &Line, mut space: usize) -> Vec<Diagnostics> {
    let component = line.session(|session| session.component().clone());
    let deadline = Instant::now() + LIMIT;
    let units = component.units.iter().filter(|unit| unit.fault.is_none());
    let mut all = Vec::new();
    for unit in units.map(Some).chain([None]) {
        let time = deadline.saturating_duration_since(Instant::now());
        let files = line.diagnose(unit, time).await.map(|files| limited(files, &mut space));
        all.push(Diagnostics { component: component.clone(), unit: unit.map(|unit| unit.id.clone()), files });
        // A component that does not respond for one unit will not respond for the others.
        if Instant::now() >= deadline {
            break;
        }
    }
    all
}

/// Drops the contents that exceed the remaining space.
fn limited(files: Vec<DiagnosticFile>, space: &mut usize) -> Vec<File> {
    let limit = |mut file: DiagnosticFile| {
        let size = file.content.len();
        if size > *space {
            file.content = Vec::new();
            return File { file, dropped: Some(size) };
        }
        *space -= size;
        File { file, dropped: None }
    };
    files.into_iter().take(FILES_MAX).map(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_beyond_the_limit_are_dropped_and_named() {
        let file = |size: usize| DiagnosticFile { content: vec![b'x'; size], ..DiagnosticFile::default() };
        let mut space = 10;
        let files = limited(vec![file(6), file(5), file(4)], &mut space);
        let dropped: Vec<_> = files.iter().map(|file| (file.file.content.len(), file.dropped)).collect();
        assert_eq!(dropped, [(6, None), (0, Some(5)), (4, None)]);
        assert_eq!(limited(vec![file(0); 100], &mut space).len(), FILES_MAX);
    }
}
