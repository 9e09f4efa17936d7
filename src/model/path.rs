/// What becomes of the parts of a request's path that servers read differently, before anything looks at it.
///
/// Dot segments are no choice: wherever a route looks at the path, they are resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathNormalization {
    /// `%2F`, which some servers take for the slash between two segments.
    pub encoded_slash: PathAction,
    /// `\` and `%5C`, which some servers take for a slash too.
    pub backslash: PathAction,
    /// Slashes in a row become one.
    pub merge_slashes: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PathAction {
    /// It is data, and stays as it is.
    #[default]
    Keep,
    /// The request is refused with 400.
    Reject,
    /// It becomes `/`.
    Decode,
}

impl PathAction {
    pub const ALL: [PathAction; 3] = [PathAction::Keep, PathAction::Reject, PathAction::Decode];

    /// As documents write it.
    pub fn as_str(self) -> &'static str {
        match self {
            PathAction::Keep => "keep",
            PathAction::Reject => "reject",
            PathAction::Decode => "decode",
        }
    }
}

impl PathNormalization {
    /// Whether a path may become another one by more than its dot segments.
    pub fn rewrites(&self) -> bool {
        self.merge_slashes
            || self.encoded_slash == PathAction::Decode
            || self.backslash == PathAction::Decode
    }
}
