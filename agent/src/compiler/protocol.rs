//! What agent and compiler say to each other: one request and one answer per connection.
//!
//! ```text
//!  request   length of features (4 bytes), of text (4); features; text
//!  answer    kind (1 byte), length of blob (4), of words (4); blob; words
//! ```
//!
//! Numbers are big-endian. A client that closes its end, also only that of what it sends, no longer wants the
//! answer. Both containers have one image, so there are no versions.
//!
//! Invariant: no length is believed: each is compared with its limit first, and memory is taken as bytes come.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Answer, Limit};

/// The features of a kernel have some 5 KiB.
pub(super) const MOST_FEATURES: usize = 64 << 10;
/// A ConfigMap has no room for more.
pub(super) const MOST_TEXT: usize = 1 << 20;
/// The largest of Debian's profiles yields 0.2 MiB.
pub(super) const MOST_BLOB: usize = 4 << 20;
/// Of what the parser says.
pub(super) const MOST_WORDS: usize = 64 << 10;

const COMPILED: u8 = 0;
const REFUSED: u8 = 1;
const OUT_OF_TIME: u8 = 2;
const OUT_OF_MEMORY: u8 = 3;
const TOO_LARGE: u8 = 4;
const CRASHED: u8 = 5;
const FAILED: u8 = 6;

/// A text, and the kernel to compile it for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Request {
    /// As in the parser's features files.
    pub(super) features: Vec<u8>,
    pub(super) text: Vec<u8>,
}

/// An answer, or why there is none: not for what the text is, so that it can be tried again.
pub(super) type Reply = Result<Answer, String>;

/// Reads a request.
///
/// # Errors
/// `InvalidData` if a length is beyond its limit; or the connection fails, or ends before the request does.
pub(super) async fn read_request(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Request> {
    let features = length(from, MOST_FEATURES).await?;
    let text = length(from, MOST_TEXT).await?;
    Ok(Request { features: bytes(from, features).await?, text: bytes(from, text).await? })
}

/// Writes a request.
///
/// # Errors
/// `InvalidInput` if a part is beyond its limit; or the connection fails.
pub(super) async fn write_request(
    to: &mut (impl AsyncWrite + Unpin),
    features: &str,
    text: &str,
) -> io::Result<()> {
    let head = [known_length(features.as_bytes(), MOST_FEATURES)?, known_length(text.as_bytes(), MOST_TEXT)?]
        .concat();
    to.write_all(&head).await?;
    to.write_all(features.as_bytes()).await?;
    to.write_all(text.as_bytes()).await?;
    to.flush().await
}

/// Reads a reply.
///
/// # Errors
/// `InvalidData` if it is none; or the connection fails, or ends before the reply does.
pub(super) async fn read_reply(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Reply> {
    let kind = from.read_u8().await?;
    let blob = length(from, if kind == COMPILED { MOST_BLOB } else { 0 }).await?;
    let words = length(from, MOST_WORDS).await?;
    let blob = bytes(from, blob).await?;
    let stderr = String::from_utf8_lossy(&bytes(from, words).await?).into_owned();
    Ok(Ok(match kind {
        COMPILED => Answer::Compiled { blob, stderr },
        REFUSED => Answer::Refused { stderr },
        OUT_OF_TIME => Answer::Limit(Limit::Time),
        OUT_OF_MEMORY => Answer::Limit(Limit::Memory),
        TOO_LARGE => Answer::Limit(Limit::Size),
        CRASHED => Answer::Crashed,
        FAILED => return Ok(Err(stderr)),
        _ => return Err(io::Error::new(ErrorKind::InvalidData, format!("{kind} is no kind of answer"))),
    }))
}

/// Writes a reply, whose words are cut at [`MOST_WORDS`].
///
/// # Errors
/// `InvalidInput` if the blob is beyond its limit; or the connection fails.
pub(super) async fn write_reply(to: &mut (impl AsyncWrite + Unpin), reply: &Reply) -> io::Result<()> {
    let (kind, blob, words): (u8, &[u8], &str) = match reply {
        Ok(Answer::Compiled { blob, stderr }) => (COMPILED, blob, stderr),
        Ok(Answer::Refused { stderr }) => (REFUSED, &[], stderr),
        Ok(Answer::Limit(Limit::Time)) => (OUT_OF_TIME, &[], ""),
        Ok(Answer::Limit(Limit::Memory)) => (OUT_OF_MEMORY, &[], ""),
        Ok(Answer::Limit(Limit::Size)) => (TOO_LARGE, &[], ""),
        Ok(Answer::Crashed) => (CRASHED, &[], ""),
        Err(reason) => (FAILED, &[], reason),
    };
    let words = &words.as_bytes()[..words.len().min(MOST_WORDS)];
    let lengths = [known_length(blob, MOST_BLOB)?, known_length(words, MOST_WORDS)?].concat();
    to.write_all(&[kind]).await?;
    to.write_all(&lengths).await?;
    to.write_all(blob).await?;
    to.write_all(words).await?;
    to.flush().await
}

async fn length(from: &mut (impl AsyncRead + Unpin), most: usize) -> io::Result<usize> {
    let length = from.read_u32().await?;
    usize::try_from(length).ok().filter(|length| *length <= most).ok_or_else(|| {
        io::Error::new(
            ErrorKind::InvalidData,
            format!("{length} bytes are announced where {most} are the most"),
        )
    })
}

fn known_length(bytes: &[u8], most: usize) -> io::Result<[u8; 4]> {
    let length = bytes.len();
    u32::try_from(length).ok().filter(|_| length <= most).map(u32::to_be_bytes).ok_or_else(|| {
        io::Error::new(ErrorKind::InvalidInput, format!("it has {length} bytes where {most} are the most"))
    })
}

/// The next `length` bytes.
async fn bytes(from: &mut (impl AsyncRead + Unpin), length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(length as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check_reply(reply: Reply) {
        let mut wire = Vec::new();
        write_reply(&mut wire, &reply).await.unwrap();
        assert_eq!(read_reply(&mut &wire[..]).await.unwrap(), reply);
        for end in 0..wire.len() {
            let error = read_reply(&mut &wire[..end]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{reply:?} cut at {end}");
        }
    }

    #[tokio::test]
    async fn what_is_written_is_read_and_half_of_it_is_not() {
        check_reply(Ok(Answer::Compiled { blob: vec![0, 255], stderr: "Warning …".into() })).await;
        check_reply(Ok(Answer::Compiled { blob: vec![], stderr: String::new() })).await;
        check_reply(Ok(Answer::Refused { stderr: "line 1".into() })).await;
        for limit in [Limit::Time, Limit::Memory, Limit::Size] {
            check_reply(Ok(Answer::Limit(limit))).await;
        }
        check_reply(Ok(Answer::Crashed)).await;
        check_reply(Err("no more processes".into())).await;

        let mut wire = Vec::new();
        write_request(&mut wire, "features", "text").await.unwrap();
        let request = read_request(&mut &wire[..]).await.unwrap();
        assert_eq!(request, Request { features: "features".into(), text: "text".into() });
        for end in 0..wire.len() {
            let error = read_request(&mut &wire[..end]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "cut at {end}");
        }
    }

    #[tokio::test]
    async fn a_length_beyond_its_limit_is_refused_before_its_bytes_come() {
        let head = |kind: &[u8], lengths: [usize; 2]| {
            let lengths = lengths.map(|length| u32::try_from(length).unwrap().to_be_bytes()).concat();
            [kind, &lengths].concat()
        };
        for (lengths, expected) in [
            ([MOST_FEATURES, MOST_TEXT], ErrorKind::UnexpectedEof),
            ([MOST_FEATURES + 1, 0], ErrorKind::InvalidData),
            ([0, MOST_TEXT + 1], ErrorKind::InvalidData),
            ([u32::MAX as usize, u32::MAX as usize], ErrorKind::InvalidData),
        ] {
            let error = read_request(&mut &head(&[], lengths)[..]).await.unwrap_err();
            assert_eq!(error.kind(), expected, "{lengths:?}");
        }
        for (kind, lengths, expected) in [
            (COMPILED, [MOST_BLOB, MOST_WORDS], ErrorKind::UnexpectedEof),
            (COMPILED, [MOST_BLOB + 1, 0], ErrorKind::InvalidData),
            (COMPILED, [0, MOST_WORDS + 1], ErrorKind::InvalidData),
            (REFUSED, [1, 0], ErrorKind::InvalidData),
            (FAILED + 1, [0, 0], ErrorKind::InvalidData),
        ] {
            let error = read_reply(&mut &head(&[kind], lengths)[..]).await.unwrap_err();
            assert_eq!(error.kind(), expected, "{kind} {lengths:?}");
        }
    }

    #[tokio::test]
    async fn what_is_too_long_is_not_sent_and_words_are_cut() {
        let mut wire = Vec::new();
        let long = "x".repeat(MOST_TEXT + 1);
        let error = write_request(&mut wire, "", &long).await.unwrap_err();
        assert_eq!((error.kind(), wire.len()), (ErrorKind::InvalidInput, 0));
        let error = write_request(&mut wire, &long, "").await.unwrap_err();
        assert_eq!((error.kind(), wire.len()), (ErrorKind::InvalidInput, 0));

        write_reply(&mut wire, &Ok(Answer::Refused { stderr: long })).await.unwrap();
        let Ok(Answer::Refused { stderr }) = read_reply(&mut &wire[..]).await.unwrap() else { panic!() };
        assert_eq!(stderr.len(), MOST_WORDS);
    }
}
