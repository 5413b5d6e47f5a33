//! Whether what is usually refused is done all the same.

/// A caller's word on refusals that are about wisdom, not possibility: managed policies, versions, cool-downs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Force {
    /// Refuse.
    #[default]
    No,
    /// Do it all the same.
    Yes,
}

impl Force {
    /// Whether it is to be done all the same.
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
