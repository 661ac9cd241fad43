//! Texts, and what `apparmor_parser` 3.0.8 printed of each: all with `-Q -T -K -S -M FEATURES`, warnings also
//! with `--warn=all`. `%` stands for where the parser says that it was, without the line's number.

/// Texts that it refuses.
pub(super) const REFUSED: &[(&str, &str)] = &[
    (
        "profile a {\n file,\n",
        "%3: syntax error, unexpected end of file, expecting TOK_ID or TOK_MODE or TOK_SET_VAR\n",
    ),
    (
        "profile a {\n file\n}\n",
        "%3: syntax error, unexpected TOK_CLOSE, expecting TOK_ID or TOK_MODE or TOK_SET_VAR\n",
    ),
    ("profile a {\n /etc/passwd rq,\n}\n", "%2: syntax error, unexpected TOK_ID, expecting TOK_MODE\n"),
    ("profile a {\n  /x r\n  /y w,\n}\n", "%3: missing an end of line character? (entry: /x)\n"),
    (
        "profile a {\n  network inet\n  capability chown,\n}\n",
        "%3: syntax error, unexpected TOK_ID, expecting TOK_END_OF_RULE\n",
    ),
    (
        "profile a {\n  flags=(x)\n}\n",
        "%2: syntax error, unexpected TOK_CONDID, expecting TOK_ID or TOK_MODE or TOK_SET_VAR\n",
    ),
    ("profile a { } }\n", "%1: syntax error, unexpected TOK_CLOSE, expecting end of file\n"),
    ("profile a {\n  foo,\n}\n", "%2: syntax error, unexpected TOK_END_OF_RULE, expecting TOK_MODE\n"),
    ("profile a {\n  userns,\n}\n", "%2: syntax error, unexpected TOK_END_OF_RULE, expecting TOK_MODE\n"),
    ("a {\n}\n", "%1: syntax error, unexpected TOK_MODE, expecting end of file\n"),
    ("foo {\n}\n", "%2: Profile names must begin with a '/', namespace or keyword 'profile' or 'hat'.\n"),
    ("profile a foo {\n}\n", "%2: Profile attachment must begin with a '/' or variable.\n"),
    ("profile a flags=(foo) {\n}\n", "%1: Invalid profile flag: foo.\n"),
    ("profile a flags=(complain,enforce) {\n}\n", "%1: Profile flag 'complain' conflicts with 'enforce'\n"),
    ("profile a flag=(complain) {\n}\n", "%1: expected flags= got flag=\n"),
    ("profile :ns {\n}\n", "%2: Namespace not terminated: :ns\n\n"),
    ("profile \"\" {\n}\n", "%2: Empty named transition profile name: \n\n"),
    ("profile @{x} {\n}\n", "Found reference to variable x, but is never declared\n"),
    ("profile a {\n  /@{NOPE}/x r,\n}\n", "Found reference to variable NOPE, but is never declared\n"),
    (
        "@{a}=@{b}\nprofile a {\n  /@{a} r,\n}\n",
        "Variable @{a} references undefined variable @{b}\nfailure expanding variable a\n",
    ),
    (
        "@{a}=@{b}\n@{b}=@{a}\nprofile a {\n  /@{a} r,\n}\n",
        "Variable @{a} is referenced recursively (by @{b})\nfailure expanding variable a\n",
    ),
    (
        "@{a}=b\n@{a}=c\nprofile a {\n}\n",
        "'a' is already defined\n%3: variable @{a} was previously declared\n",
    ),
    (
        "@{a}+=c\nprofile a {\n}\n",
        "Failed to find declaration for: a\n%2: variable @{a} was not previously declared, but is being assigned additional values\n",
    ),
    ("@{x}=a, b\nprofile a {}\n", "%1: Variable declarations do not accept trailing commas\n"),
    ("$foo = bar\nprofile a {}\n", "%1: Invalid boolean assignment for ($foo): bar is not true or false\n"),
    ("profile a {\n  if $foo { file, }\n}\n", "%2: Unset boolean variable $foo used in if-expression\n"),
    ("profile a {\n}\nprofile a {\n}\n", "Multiple definitions for profile a exist,bailing out.\n"),
    (
        "profile a {\n  ^h {}\n  ^h {}\n}\n",
        "Multiple definitions for hat h in profile (null) exist,bailing out.\n",
    ),
    ("profile a {\n  include <abstractions/nope>\n}\n", "%2: Could not open 'abstractions/nope'\n"),
    ("include \"/nope\"\nprofile a {\n}\n", "%1: Could not open '/nope'\n"),
    (
        "include <abstractions/base>\nprofile a {\n}\n",
        "AppArmor parser error for /dev/stdin in profile /usr/share/pavise/apparmor.d/abstractions/crypto at line 16: syntax error, unexpected TOK_MODE, expecting TOK_OPEN\n",
    ),
    (
        "profile a {\n  include <tunables/global>\n}\n",
        "AppArmor parser error for /dev/stdin in profile /usr/share/pavise/apparmor.d/tunables/home at line 16: syntax error, unexpected TOK_EQUALS, expecting TOK_MODE\n",
    ),
    (
        "profile a {\n  include <abstractions/base\n}\n",
        "%2: Lexer found unexpected character: '<' (0x3c) in state: INCLUDE\n",
    ),
    ("abi <abi/9.0>,\nprofile a {\n}\n", "%1: Could not open 'abi/9.0': No such file or directory\n"),
    (
        "abi <abi/3.0>\nprofile a {\n}\n",
        "%2: syntax error, unexpected TOK_VALUE, expecting TOK_END_OF_RULE\n",
    ),
    ("profile a {\n  capability foo,\n}\n", "%2: Invalid capability foo.\n"),
    ("profile a {\n  capability CAP_CHOWN,\n}\n", "%2: Invalid capability CAP_CHOWN.\n"),
    ("profile a {\n  network foo,\n}\n", "%2: Invalid network entry.\n"),
    (
        "profile a {\n  /x{a,b r,\n}\n",
        "apparmor_parser: Regex grouping error: Unclosed grouping or character class, expecting close }\napparmor_parser: Unable to parse input line '/x{a,b'\nERROR processing regexs for profile a, failed to load\n",
    ),
    (
        "profile a {\n  /z{a} r,\n}\n",
        "apparmor_parser: Regex grouping error: Invalid number of items between {}\napparmor_parser: Unable to parse input line '/z{a}'\nERROR processing regexs for profile a, failed to load\n",
    ),
    (
        "profile a {\n  /x[a r,\n}\n",
        "apparmor_parser: Regex grouping error: Unclosed grouping or character class, expecting close }\napparmor_parser: Unable to parse input line '/x[a'\nERROR processing regexs for profile a, failed to load\n",
    ),
    (
        "profile a {\n  deny /x ix,\n}\n",
        "%2: Invalid mode, in deny rules 'x' must not be preceded by exec qualifier 'i', 'p', or 'u'\n",
    ),
    (
        "profile a {\n  /x x,\n}\n",
        "%2: Invalid mode, 'x' must be preceded by exec qualifier 'i', 'p', 'c', or 'u'\n",
    ),
    ("profile a {\n  /x wa,\n}\n", "%2: Conflict 'a' and 'w' perms are mutually exclusive.\n"),
    (
        "profile a {\n  /x pxcx,\n}\n",
        "%2: Exec qualifier 'c' invalid, conflicting qualifier already specified\n",
    ),
    (
        "profile a {\n  /x px,\n  /x ix,\n}\n",
        "profile a: has merged rule /x with conflicting x modifiers\nERROR merging rules for profile a, failed to load\n",
    ),
    ("profile a {\n  signal set=(foo),\n}\n", "%2: unknown signal \"foo\"\n\n"),
    ("profile a {\n  signal (foo),\n}\n", "%2: Internal: unexpected signal mode character 'f' in input\n"),
    ("profile a {\n  signal foo=bar,\n}\n", "%2: invalid signal rule conditional \"foo\"\n\n"),
    ("profile a {\n  set rlimit foo <= 10,\n}\n", "%2: INVALID RLIMIT 'foo'\n\n"),
    (
        "profile a {\n  set rlimit cpu <= x,\n}\n",
        "%2: syntax error, unexpected TOK_ID, expecting TOK_VALUE\n",
    ),
    ("profile a {\n  set rlimit nofile <= -1,\n}\n", "%2: RLIMIT 'nofile' invalid value -1 \n\n"),
    ("profile a {\n  mount options=(foo) /x -> /y,\n}\n", "  unsupported mount options\n"),
    ("profile a {\n  mount foo=bar,\n}\n", "%2: invalid mount conditional foo\n%2: bad mount rule\n"),
    ("profile a {\n  dbus foo=bar,\n}\n", "%2: invalid dbus conditional \"foo\"\n\n"),
    ("profile a {\n  unix (create) type=foo,\n}\n", "%2: socket rule: invalid socket type 'foo'\n"),
    ("profile a {\n  ptrace (foo),\n}\n", "%2: Internal: unexpected ptrace mode character 'f' in input\n"),
    ("profile a {\n  owner capability chown,\n}\n", "%2: owner prefix not allowed on capability rules\n"),
    ("profile a {\n  deny { file, }\n}\n", "%2: deny prefix not allowed\n"),
    (
        "profile a {\n  change_profile unsafe,\n}\n",
        "%2: Exec condition is required when unsafe or safe keywords are present\n",
    ),
    ("profile a {\n  change_profile b,\n}\n", "%2: Exec condition must begin with '/'.\n"),
    ("profile a {\n  unsafe /x r,\n}\n", "%2: unsafe rule missing exec permissions\n"),
    ("profile a {\n}\n# the end", "%3: Lexer found unexpected character: '#' (0x23) in state: INITIAL\n"),
    (
        "\u{feff}profile a {\n}\n",
        "%1: Lexer found unexpected character: '\u{fffd}' (0xffffffef) in state: INITIAL\n",
    ),
    ("profile a {\n  \u{0}\n}\n", "%2: Lexer found unexpected character: '' (0x0) in state: INITIAL\n"),
    (
        "profile a {\n  /\"foo\" r,\n}\n",
        "%2: Lexer found unexpected character: '\"' (0x22) in state: INITIAL\n",
    ),
    (
        "profile a {\n  \"/foo r,\n}\n",
        "%2: Lexer found unexpected character: '\"' (0x22) in state: INITIAL\n",
    ),
    (
        "profile a {\n  \u{e4} r,\n}\n",
        "%2: Lexer found unexpected character: '\u{fffd}' (0xffffffc3) in state: INITIAL\n",
    ),
    ("profile a {\n  file,\r}\n", "%2: Lexer found unexpected character: '\r' (0xd) in state: INITIAL\n"),
    (
        "{\"defaultAction\": \"SCMP_ACT_LOG\"}\n",
        "%1: syntax error, unexpected TOK_OPEN, expecting end of file\n",
    ),
    ("apiVersion: v1\nkind: ConfigMap\n", "%1: syntax error, unexpected TOK_ID, expecting TOK_OPEN\n"),
    (
        "alias /x -> /y\nprofile a {\n}\n",
        "%2: syntax error, unexpected TOK_PROFILE, expecting TOK_END_OF_RULE\n",
    ),
    ("profile a {\n  /x px -> b,\n}\n", "Profile a has too many specified profile transitions.\n"),
    (
        "profile a {\n  # ---\n}\n",
        "input buffer overflow, can't enlarge buffer because scanner uses REJECT\n",
    ),
];

/// Texts that it takes, and warns of.
pub(super) const WARNED: &[(&str, &str)] = &[
    (
        "profile a {\n  /x Rw,\n  /y ux,\n  set rlimit cpu <= 10,\n  \"/a\\z\" r,\n  unix,\n}\n/bin/x {}\n",
        "Warning from /dev/stdin (/dev/stdin line 2): Uppercase qualifiers \"RWLIMX\" are deprecated, please convert to lowercase\nSee the apparmor.d(5) manpage for details.\nWarning from /dev/stdin (/dev/stdin line 3): Unconfined exec qualifier (ux) allows some dangerous environment variables to be passed to the unconfined process; 'man 5 apparmor.d' for details.\nWarning from /dev/stdin (/dev/stdin line 4): RLIMIT 'cpu' no units specified using default units of seconds\nWarning from /dev/stdin (/dev/stdin line 8): The use of file paths as profile names is deprecated. See man apparmor.d for more information\nWarning from /dev/stdin (/dev/stdin line 9): Character z was quotedunnecessarily, dropped preceding quote ('\\') character\n",
    ),
    (
        "abi <abi/3.0>,\nprofile a {\n  abi <abi/kernel-5.4-vanilla>,\n  mount, signal,\n  deny network,\n  unix (create) type=stream,\n}\n",
        "Warning from /dev/stdin (/dev/stdin line 3): apparmor_parser: /dev/stdin features abi 'abi/kernel-5.4-vanilla' differs from policy declared feature abi, using the features abi declared in policy\nWarning from profile a (/dev/stdin): deny unix socket rule not enforced, can't be downgraded to generic network rule\n\n",
    ),
];
