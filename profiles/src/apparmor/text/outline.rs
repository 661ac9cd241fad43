//! What a policy declares: its profiles, and of their rules what there are findings about.
//!
//! Follows `parser_yacc.y` of `apparmor_parser` 3.0.8 as far as braces, headers of profiles and ends of rules
//! go. What is between them is told by its first words. Where a text is none that the parser takes, the
//! outline is a guess, and the parser says what is wrong.
//!
//! Invariant: blocks are kept on the heap, so no nesting is too deep.

use super::lexer::{Kind, Lexer, Token};

/// More tokens than any header or rule has that means something.
const LONGEST: usize = 4_000;

/// More profiles, children and hats are not read: no sound text has as many, and each costs memory.
pub(super) const MOST: usize = 1_000;

/// A text, taken apart.
#[derive(Debug, Default)]
pub(super) struct Outline<'a> {
    /// In the order in which they begin.
    pub(super) profiles: Vec<Profile<'a>>,
    pub(super) includes: Vec<Include<'a>>,
    /// Whether there are more than [`MOST`] profiles.
    pub(super) is_cut: bool,
    /// Whether something stands where it can't.
    pub(super) is_broken: bool,
}

/// A profile, a child or a hat.
#[derive(Debug)]
pub(super) struct Profile<'a> {
    /// Which profile it is in.
    pub(super) parent: Option<usize>,
    pub(super) name: Token<'a>,
    /// What stands behind the name: where it attaches itself.
    pub(super) attachment: Option<Token<'a>>,
    pub(super) flags: Vec<Token<'a>>,
    /// The first word `deny`.
    pub(super) deny: Option<(usize, usize)>,
    /// The rules that let programs change to another profile.
    pub(super) changes: Vec<Change<'a>>,
    /// Whether it includes what most programs need, or allows all files.
    pub(super) has_base: bool,
}

/// A rule `change_profile` that is no `deny` rule.
#[derive(Debug)]
pub(super) struct Change<'a> {
    pub(super) at: (usize, usize),
    pub(super) is_unsafe: bool,
    /// None: any.
    pub(super) target: Option<&'a str>,
}

/// A file that is included, or named by `abi`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Include<'a> {
    pub(crate) path: &'a str,
    pub(crate) at: (usize, usize),
    pub(crate) is_searched: bool,
    pub(crate) if_exists: bool,
    pub(crate) is_abi: bool,
}

impl<'a> Outline<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut outline = Self::default();
        let mut blocks: Vec<Option<usize>> = Vec::new();
        let mut statement: Vec<Token<'a>> = Vec::new();
        let mut lexer = Lexer::new(text);
        while let Some(token) = lexer.next().filter(|_| !outline.is_cut) {
            let profile = blocks.last().copied().flatten();
            match token.kind {
                Kind::Include { is_searched, if_exists } => {
                    let include =
                        Include { path: token.text, at: token.at, is_searched, if_exists, is_abi: false };
                    outline.include(profile, include);
                }
                Kind::Abi { is_searched } => {
                    let (path, at) = (token.text, token.at);
                    outline.includes.push(Include { path, at, is_searched, if_exists: false, is_abi: true });
                }
                Kind::Open => {
                    let opened = outline.open(profile, &statement);
                    blocks.push(opened.or(profile));
                    statement.clear();
                }
                Kind::Close => {
                    outline.is_broken |= blocks.pop().is_none() || !statement.is_empty();
                    statement.clear();
                }
                Kind::EndOfRule => {
                    outline.rule(profile, &statement);
                    statement.clear();
                }
                Kind::EndOfAssignment => statement.clear(),
                Kind::Error => outline.is_broken = true,
                _ if statement.len() < LONGEST => statement.push(token),
                _ => outline.is_broken = true,
            }
        }
        let is_assignment = statement.get(1).is_some_and(|token| token.kind == Kind::Equals);
        outline.is_broken |= !blocks.is_empty() || !(statement.is_empty() || is_assignment);
        outline
    }

    fn include(&mut self, profile: Option<usize>, include: Include<'a>) {
        self.includes.push(include);
        if include.is_searched && include.path == "abstractions/base" {
            self.allow_base(profile);
        }
    }

    /// The profile that this header begins, if it is one.
    fn open(&mut self, parent: Option<usize>, header: &[Token<'a>]) -> Option<usize> {
        let keyword = header.iter().rposition(|token| matches!(token.kind, Kind::Profile | Kind::Hat));
        let start = match keyword {
            Some(keyword) => keyword + 1,
            // Only children need a keyword.
            None if parent.is_none() => header.iter().position(|token| token.kind == Kind::Id)?,
            None => return None,
        };
        let (name, rest) = header.get(start..)?.split_first()?;
        let mut attachment =
            rest.first().filter(|token| matches!(token.kind, Kind::Id | Kind::Variable)).copied();
        let (mut flags, mut is_in_group) = (Vec::new(), false);
        for token in rest {
            match token.kind {
                Kind::Group => {
                    attachment.get_or_insert(*token);
                    is_in_group = true;
                }
                Kind::CloseParenthesis => is_in_group = false,
                Kind::Value if !is_in_group => flags.push(*token),
                _ => {}
            }
        }
        if self.profiles.len() == MOST {
            self.is_cut = true;
            return None;
        }
        let (deny, changes, has_base) = (None, Vec::new(), false);
        self.profiles.push(Profile { parent, name: *name, attachment, flags, deny, changes, has_base });
        Some(self.profiles.len() - 1)
    }

    fn rule(&mut self, profile: Option<usize>, rule: &[Token<'a>]) {
        let Some(profile) = profile.and_then(|index| self.profiles.get_mut(index)) else { return };
        let is_prefix = |token: &&Token<'_>| {
            token.kind == Kind::Keyword
                && matches!(token.text, "audit" | "allow" | "deny" | "owner" | "user" | "other")
        };
        let prefixes = rule.iter().take_while(is_prefix).count();
        let (prefixes, rule) = rule.split_at(prefixes);
        if let Some(deny) = prefixes.iter().find(|token| token.text == "deny") {
            profile.deny.get_or_insert(deny.at);
            return;
        }
        let Some((first, rest)) = rule.split_first() else { return };
        match (first.kind, first.text) {
            (Kind::Keyword, "change_profile") => profile.changes.push(Change {
                at: first.at,
                is_unsafe: rest.first().is_some_and(|token| token.text == "unsafe"),
                target: target(rest),
            }),
            (Kind::Keyword, "file") if prefixes.is_empty() && allows_files(rest) => profile.has_base = true,
            _ if prefixes.is_empty() && allows_files(rule) && !rule.is_empty() => profile.has_base = true,
            _ => {}
        }
    }

    /// The profile has what most programs need.
    fn allow_base(&mut self, profile: Option<usize>) {
        if let Some(profile) = profile.and_then(|index| self.profiles.get_mut(index)) {
            profile.has_base = true;
        }
    }
}

fn target<'a>(change: &[Token<'a>]) -> Option<&'a str> {
    let arrow = change.iter().position(|token| token.kind == Kind::Arrow)?;
    change.get(arrow + 1).map(|token| token.text)
}

/// Whether this is all files: what stands behind `file`, or a rule for `/**` that lets libraries be mapped.
fn allows_files(rule: &[Token<'_>]) -> bool {
    let all = |path: &str| matches!(path, "/**" | "/{**,}" | "/{,**}");
    match rule {
        [] => true,
        [path, mode] | [mode, path] if mode.kind == Kind::Mode => all(path.text) && mode.text.contains('m'),
        _ => false,
    }
}
