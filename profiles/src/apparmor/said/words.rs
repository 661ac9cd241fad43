//! What `apparmor_parser` 3.0.8 says, and how it is said to authors.
//!
//! Invariant: what can be passed on of a message is one word; all else that is said stands here.

use crate::diagnostic::Code;

/// A message that is known.
pub(super) struct Known {
    /// What stands before the word that it is about.
    before: &'static str,
    /// What stands behind that word.
    after: &'static str,
    pub(super) code: Code,
    /// What is wrong, without the word.
    pub(super) says: &'static str,
    pub(super) help: &'static str,
}

impl Known {
    /// The word of `message`, if it is this one.
    fn word<'a>(&self, message: &'a str) -> Option<&'a str> {
        let (_, rest) = message.split_once(self.before)?;
        if self.after.is_empty() {
            return Some(rest);
        }
        rest.split_once(self.after).map(|(word, _)| word)
    }
}

/// The first row of `table` that `message` is, and its word.
pub(super) fn known<'a>(table: &'static [Known], message: &'a str) -> Option<(&'static Known, &'a str)> {
    table.iter().find_map(|known| known.word(message).map(|word| (known, word)))
}

/// Makes a table of [`Known`] messages: what stands before and behind the word, the code, what is said, what
/// to do.
macro_rules! known {
    ($($before:literal .. $after:literal => $code:ident, $says:literal, $help:literal;)+) => {
        &[$(Known { before: $before, after: $after, code: Code::$code, says: $says, help: $help }),+]
    };
}

/// Errors. Where one row fits all that another one does, the other one is first.
pub(super) const ERRORS: &[Known] = known! {
    "Could not open '" .. "': " => UnknownAbi,
        "there is no such abi file in the image",
        "write abi <abi/3.0>,";
    "failed to find features abi '" .. "'" => UnknownAbi,
        "there is no such abi file in the image",
        "write abi <abi/3.0>,";
    "Could not open '" .. "'" => MissingInclude,
        "there is no such file in the image",
        "include one of AppArmor's own files, or write its rules here";
    "Multiple definitions for profile " .. " exist" => DuplicateProfile,
        "the profile is declared twice",
        "rename one of the two";
    "Multiple definitions for hat " .. " in profile " => DuplicateProfile,
        "the child or hat is declared twice in its profile",
        "rename one of the two";
    "Invalid capability " .. "." => InvalidPolicy,
        "there is no such capability",
        "see capabilities(7), and write it in lower case without cap_";
    "Invalid profile flag: " .. "." => InvalidPolicy,
        "the parser knows no such flag of a profile",
        "see apparmor.d(5)";
    "Profile flag '" .. "' conflicts with" => InvalidPolicy,
        "the flag conflicts with another one",
        "leave one of the two out";
    "expected flags= got " .. "=" => InvalidPolicy,
        "flags= is expected here",
        "correct it";
    "input buffer overflow, can't enlarge buffer" .. "" => InvalidPolicy,
        "a word or comment is longer than the parser reads, which is 16 KiB",
        "break it into several";
    "missing an end of line character? (entry: " .. ")" => InvalidPolicy,
        "the comma behind the rule is missing",
        "end each rule with a comma";
    "Profile attachment must begin with a '/'" .. "" => InvalidPolicy,
        "a profile that ends here has a second word before {, which is no path",
        "leave one name, without blanks";
    "Profile names must begin with a '/', namespace or keyword" .. "" => InvalidPolicy,
        "a profile that ends here lacks the word profile",
        "write profile <name> { … }";
    "Namespace not terminated: " .. "" => InvalidPolicy,
        "a colon begins a namespace, which must end with another one",
        "leave the colon out";
    "Empty namespace: " .. "" => InvalidPolicy,
        "the namespace is empty",
        "leave the colons out";
    "Empty named transition profile name" .. "" => InvalidPolicy,
        "the name is empty",
        "name the profile";
    "Found reference to variable " .. ", but is never declared" => InvalidPolicy,
        "the variable has no value",
        "assign one before the profiles, or include <tunables/global> there";
    "Found reference to set variable " .. ", but declared boolean" => InvalidPolicy,
        "the variable is a boolean one",
        "use another one";
    " references undefined variable @{" .. "}" => InvalidPolicy,
        "the variable has no value",
        "assign one before the profiles, or include <tunables/global> there";
    "Variable @{" .. "} is referenced recursively" => InvalidPolicy,
        "the variable is part of its own value",
        "take it out of there";
    "variable " .. " was previously declared" => InvalidPolicy,
        "the variable has a value already",
        "add to it with +=, or remove one of the two";
    "variable " .. " was not previously declared" => InvalidPolicy,
        "there is nothing to add to: the variable has no value",
        "assign one with =";
    "Unset boolean variable " .. " used in if-expression" => InvalidPolicy,
        "the boolean variable has no value",
        "assign true or false before the profiles";
    "Invalid boolean assignment for (" .. "): " => InvalidPolicy,
        "the value of a boolean variable must be true or false",
        "correct it";
    "Variable declarations do not accept trailing commas" .. "" => InvalidPolicy,
        "no comma may stand in an assignment",
        "put blanks between values";
    "has merged rule " .. " with conflicting x modifiers" => InvalidPolicy,
        "two rules say differently how the program is executed",
        "keep one of them";
    "Unable to parse input line '" .. "'" => InvalidPolicy,
        "the brackets or braces of the pattern do not match, or braces have one alternative only",
        "correct the pattern, or put a backslash before them";
    "Profile " .. " has too many specified" => PolicyLimit,
        "the profile names more profiles to change to than the kernel takes",
        "name fewer";
    "in deny rules 'x' must not be preceded" .. "" => InvalidPolicy,
        "in a deny rule, x stands alone",
        "write x without i, p, c or u";
    "'x' must be preceded by exec qualifier" .. "" => InvalidPolicy,
        "x alone does not say how the program is executed",
        "write ix, px, cx or ux";
    "Conflict 'a' and 'w' perms" .. "" => InvalidPolicy,
        "a and w exclude each other",
        "leave one of the two out";
    "Exec qualifier '" .. "' invalid, conflicting" => InvalidPolicy,
        "the permissions say twice how the program is executed",
        "leave one of the two out";
    "Invalid network entry" .. "" => InvalidPolicy,
        "the parser knows no such network family, type or protocol",
        "see apparmor.d(5), and end the rule with a comma";
    "unknown signal \"" .. "\"" => InvalidPolicy,
        "there is no such signal",
        "see apparmor.d(5) for their names";
    "INVALID RLIMIT '" .. "'" => InvalidPolicy,
        "there is no such limit",
        "see setrlimit(2), and write it in lower case without RLIMIT_";
    "RLIMIT '" .. "' " => InvalidPolicy,
        "the limit has no value that can be set",
        "correct it";
    "invalid mount conditional " .. "" => InvalidPolicy,
        "the parser knows no such condition of a mount rule",
        "see apparmor.d(5)";
    "unsupported mount " .. "" => InvalidPolicy,
        "the parser knows no such option or condition of a mount rule",
        "see apparmor.d(5)";
    "invalid dbus conditional \"" .. "\"" => InvalidPolicy,
        "the parser knows no such condition of a dbus rule",
        "see apparmor.d(5)";
    "invalid signal rule conditional \"" .. "\"" => InvalidPolicy,
        "the parser knows no such condition of a signal rule",
        "see apparmor.d(5)";
    "invalid ptrace rule conditional \"" .. "\"" => InvalidPolicy,
        "the parser knows no such condition of a ptrace rule",
        "see apparmor.d(5)";
    "unix rule: invalid conditional '" .. "'" => InvalidPolicy,
        "the parser knows no such condition of a unix rule",
        "see apparmor.d(5)";
    "invalid socket type '" .. "'" => InvalidPolicy,
        "there is no such type of sockets",
        "see apparmor.d(5)";
    "' conditional is not currently supported" .. "" => InvalidPolicy,
        "the parser does not support the condition yet",
        "leave it out";
    "mode character '" .. "' in input" => InvalidPolicy,
        "the parser knows no such permission for this kind of rules",
        "see apparmor.d(5)";
    "mode contains " .. "" => InvalidPolicy,
        "the rule has a permission that this kind of rules does not have",
        "see apparmor.d(5)";
    "owner prefix not allowed" .. "" => InvalidPolicy,
        "owner can stand before rules for files only",
        "leave it out";
    "deny prefix not allowed" .. "" => InvalidPolicy,
        "deny can't stand before a block",
        "write it before each rule";
    "Exec condition is required" .. "" => InvalidPolicy,
        "safe and unsafe need the program that is executed",
        "leave the word out, or name the program";
    "Exec condition must begin with '/'" .. "" => InvalidPolicy,
        "the program must be a path",
        "write -> before the name of a profile";
    "unsafe rule missing exec permissions" .. "" => InvalidPolicy,
        "safe and unsafe can stand only where a program is executed",
        "leave the word out";
    "invalid conditional group " .. "=()" => InvalidPolicy,
        "the parser knows no such group of conditions here",
        "see apparmor.d(5)";
};

/// Warnings.
pub(super) const WARNINGS: &[Known] = known! {
    "Uppercase qualifiers" .. "" => ParserWarning,
        "permissions in upper case are deprecated",
        "write them in lower case";
    "Unconfined exec qualifier (" .. ")" => ParserWarning,
        "programs that are executed so run unconfined, in an environment that can take them over",
        "write Ux, or better a profile of their own";
    "RLIMIT '" .. "' no units specified" => ParserWarning,
        "the limit has no unit",
        "add one";
    "features abi '" .. "' differs" => ParserWarning,
        "another abi was named before, and holds",
        "name one only";
    "Character " .. " was quoted" => ParserWarning,
        "the backslash before this character does nothing",
        "leave it out";
    "deny unix socket rule not enforced" .. "" => ParserWarning,
        "the kernel of the node does not enforce deny rules for Unix sockets",
        "do not rely on them";
    "downgrading extended network unix socket rule" .. "" => ParserWarning,
        "the kernel of the node knows only whether Unix sockets are allowed, not which",
        "do not rely on the conditions";
    "downgrading change_profile safe rule" .. "" => ParserWarning,
        "the kernel of the node does not tell safe from unsafe",
        "do not rely on it";
    "profile " .. " network rules not enforced" => ParserWarning,
        "the kernel of the node does not enforce network rules of the profile",
        "do not rely on them";
    "" .. " rules not enforce" => ParserWarning,
        "the kernel of the node does not enforce rules of this kind",
        "do not rely on them";
};

/// The grammar's names for tokens, and what they are in a text.
const TOKENS: &[(&str, &str)] = &[
    ("end of file", "the end of the text"),
    ("TOK_ID", "a name"),
    ("TOK_CONDID", "a condition"),
    ("TOK_CONDLISTID", "a group of conditions"),
    ("TOK_MODE", "permissions"),
    ("TOK_SET_VAR", "a variable"),
    ("TOK_BOOL_VAR", "a boolean variable"),
    ("TOK_VALUE", "a value"),
    ("TOK_CARET", "^"),
    ("TOK_OPEN", "{"),
    ("TOK_CLOSE", "}"),
    ("TOK_END_OF_RULE", ","),
    ("TOK_EQUALS", "="),
    ("TOK_ARROW", "->"),
    ("TOK_ADD_ASSIGN", "+="),
    ("TOK_LE", "<="),
    ("TOK_COLON", ":"),
    ("TOK_OPENPAREN", "("),
    ("TOK_CLOSEPAREN", ")"),
    ("TOK_COMMA", ","),
    ("TOK_PIVOTROOT", "pivot_root"),
];
/// Tokens that are words: the grammar's names for them, without `TOK_`, are those in upper case.
const KEYWORDS: &[&str] = &[
    "abi",
    "accept",
    "alias",
    "allow",
    "audit",
    "bind",
    "capability",
    "change_profile",
    "connect",
    "create",
    "dbus",
    "defined",
    "deny",
    "eavesdrop",
    "else",
    "file",
    "getattr",
    "getopt",
    "hat",
    "if",
    "in",
    "link",
    "listen",
    "mount",
    "network",
    "not",
    "other",
    "owner",
    "peer",
    "profile",
    "ptrace",
    "read",
    "readby",
    "receive",
    "remount",
    "rlimit",
    "safe",
    "send",
    "set",
    "setattr",
    "setopt",
    "shutdown",
    "signal",
    "subset",
    "trace",
    "tracedby",
    "umount",
    "unix",
    "unsafe",
    "write",
];

/// What `name`, the grammar's, is in a text; whether it stands there in these letters.
pub(super) fn token(name: &str) -> Option<(&'static str, bool)> {
    if let Some((_, shown)) = TOKENS.iter().find(|(token, _)| *token == name) {
        return Some((shown, !shown.contains(' ') && !matches!(*shown, "permissions")));
    }
    let word = name.strip_prefix("TOK_")?;
    KEYWORDS.iter().find(|keyword| keyword.eq_ignore_ascii_case(word)).map(|keyword| (*keyword, true))
}
