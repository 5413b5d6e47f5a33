//! The `force` option.

/// Whether to override checks that only protect against mistakes: managed policies, versions, cool-downs. Impossible
/// requests are rejected in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Force {
    /// Apply the checks.
    #[default]
    No,
    /// Override them.
    Yes,
}

impl Force {
    /// Returns true if the checks are to be overridden.
    pub fn is_yes(self) -> bool {
        self == Self::Yes
    }
}

impl From<bool> for Force {
    fn from(force: bool) -> Self {
        if force { Self::Yes } else { Self::No }
    }
}

impl From<Option<bool>> for Force {
    fn from(force: Option<bool>) -> Self {
        (force == Some(true)).into()
    }
}
