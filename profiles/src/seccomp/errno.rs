//! The names of errors.
//!
//! From the kernel's `include/uapi/asm-generic/errno-base.h` and `errno.h`, which hold for every
//! [`crate::platform::Architecture`]. `EDEADLOCK` is not here: it has another number on POWER, and Podman
//! does not know it.

/// The names of the errors from 1 on. Two numbers have none.
#[rustfmt::skip]
const NAMES: &[&str] = &[
    "EPERM", "ENOENT", "ESRCH", "EINTR", "EIO", "ENXIO", "E2BIG", "ENOEXEC", "EBADF", "ECHILD", "EAGAIN",
    "ENOMEM", "EACCES", "EFAULT", "ENOTBLK", "EBUSY", "EEXIST", "EXDEV", "ENODEV", "ENOTDIR", "EISDIR",
    "EINVAL", "ENFILE", "EMFILE", "ENOTTY", "ETXTBSY", "EFBIG", "ENOSPC", "ESPIPE", "EROFS", "EMLINK",
    "EPIPE", "EDOM", "ERANGE", "EDEADLK", "ENAMETOOLONG", "ENOLCK", "ENOSYS", "ENOTEMPTY", "ELOOP", "",
    "ENOMSG", "EIDRM", "ECHRNG", "EL2NSYNC", "EL3HLT", "EL3RST", "ELNRNG", "EUNATCH", "ENOCSI", "EL2HLT",
    "EBADE", "EBADR", "EXFULL", "ENOANO", "EBADRQC", "EBADSLT", "", "EBFONT", "ENOSTR", "ENODATA",
    "ETIME", "ENOSR", "ENONET", "ENOPKG", "EREMOTE", "ENOLINK", "EADV", "ESRMNT", "ECOMM", "EPROTO",
    "EMULTIHOP", "EDOTDOT", "EBADMSG", "EOVERFLOW", "ENOTUNIQ", "EBADFD", "EREMCHG", "ELIBACC", "ELIBBAD",
    "ELIBSCN", "ELIBMAX", "ELIBEXEC", "EILSEQ", "ERESTART", "ESTRPIPE", "EUSERS", "ENOTSOCK",
    "EDESTADDRREQ", "EMSGSIZE", "EPROTOTYPE", "ENOPROTOOPT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT",
    "EOPNOTSUPP", "EPFNOSUPPORT", "EAFNOSUPPORT", "EADDRINUSE", "EADDRNOTAVAIL", "ENETDOWN",
    "ENETUNREACH", "ENETRESET", "ECONNABORTED", "ECONNRESET", "ENOBUFS", "EISCONN", "ENOTCONN",
    "ESHUTDOWN", "ETOOMANYREFS", "ETIMEDOUT", "ECONNREFUSED", "EHOSTDOWN", "EHOSTUNREACH", "EALREADY",
    "EINPROGRESS", "ESTALE", "EUCLEAN", "ENOTNAM", "ENAVAIL", "EISNAM", "EREMOTEIO", "EDQUOT",
    "ENOMEDIUM", "EMEDIUMTYPE", "ECANCELED", "ENOKEY", "EKEYEXPIRED", "EKEYREVOKED", "EKEYREJECTED",
    "EOWNERDEAD", "ENOTRECOVERABLE", "ERFKILL", "EHWPOISON",
];

/// Other names of the same errors.
const OTHER_NAMES: &[(&str, &str)] = &[("EWOULDBLOCK", "EAGAIN"), ("ENOTSUP", "EOPNOTSUPP")];

/// The number that `text` stands for: a name, or the number itself (containers/common,
/// `pkg/seccomp/seccomp_linux.go`).
pub(crate) fn number(text: &str) -> Option<u64> {
    if text.starts_with(|letter: char| letter.is_ascii_digit()) {
        return text.parse::<u32>().ok().map(u64::from);
    }
    let name = OTHER_NAMES.iter().find(|(other, _)| *other == text).map_or(text, |(_, name)| name);
    let index = NAMES.iter().position(|known| *known == name && !name.is_empty())?;
    u64::try_from(index + 1).ok()
}

/// All names.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().copied().chain(OTHER_NAMES.iter().map(|(other, _)| *other)).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_number_that_the_kernel_gives_it() {
        for (text, expected) in [
            ("EPERM", Some(1)),
            ("EAGAIN", Some(11)),
            ("EWOULDBLOCK", Some(11)),
            ("EDEADLK", Some(35)),
            ("ENOSYS", Some(38)),
            ("ENOMSG", Some(42)),
            ("EBFONT", Some(59)),
            ("ENOTSUP", Some(95)),
            ("ECONNREFUSED", Some(111)),
            ("EHWPOISON", Some(133)),
            ("38", Some(38)),
            ("4294967296", None),
            ("+1", None),
            ("-1", None),
            ("1a", None),
            ("eperm", None),
            ("", None),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
        assert!(names().all(|name| number(name).is_some()));
    }
}
