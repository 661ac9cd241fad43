//! What the client makes of compilers that are not what they should be.

use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::task::LocalSet;

use super::*;
use crate::compiler::Limit;
use crate::compiler::protocol::{MOST_BLOB, MOST_WORDS, Reply, read_request, write_reply};

/// A compiler that does `talk` with each connection.
struct Fake {
    directory: tempfile::TempDir,
    tasks: LocalSet,
}

impl Fake {
    fn new<T: Future<Output = ()> + 'static>(talk: impl Fn(UnixStream) -> T + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let tasks = LocalSet::new();
        tasks.spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(talk(stream));
            }
        });
        Self { directory, tasks }
    }

    fn client(&self) -> Client {
        Client::new(self.directory.path().join("socket"))
    }

    async fn compile(&self, text: &str) -> Result<Answer, ClientError> {
        self.tasks.run_until(self.client().compile(text, "features")).await
    }
}

/// One that reads the request and then says `bytes`, again and again if `is_endless`.
fn saying(bytes: Vec<u8>, is_endless: bool) -> Fake {
    Fake::new(move |mut stream| {
        let bytes = bytes.clone();
        async move {
            read_request(&mut stream).await.unwrap();
            while stream.write_all(&bytes).await.is_ok() && is_endless {}
        }
    })
}

/// An answer that announces so much.
fn head(kind: u8, blob: usize, words: usize) -> Vec<u8> {
    let lengths = [blob, words].map(|length| u32::try_from(length).unwrap().to_be_bytes()).concat();
    [&[kind], &lengths[..]].concat()
}

#[tokio::test]
async fn what_the_compiler_says_arrives() {
    let replies: [Reply; 6] = [
        Ok(Answer::Compiled { blob: vec![7; MOST_BLOB], stderr: "w".repeat(MOST_WORDS) }),
        Ok(Answer::Refused { stderr: "line 1".to_owned() }),
        Ok(Answer::Limit(Limit::Size)),
        Ok(Answer::Crashed),
        Err("no more processes".to_owned()),
        Err("w".repeat(MOST_WORDS)),
    ];
    for reply in replies {
        let said = reply.clone();
        let fake = Fake::new(move |mut stream| {
            let said = said.clone();
            async move {
                let request = read_request(&mut stream).await.unwrap();
                assert_eq!((&request.text[..], &request.features[..]), (&b"text"[..], &b"features"[..]));
                write_reply(&mut stream, &said).await.unwrap();
            }
        });
        match (fake.compile("text").await, reply) {
            (Ok(answer), Ok(said)) => assert!(answer == said),
            (Err(ClientError::Failed(reason)), Err(said)) => {
                assert_eq!(reason, said.get(..MOST_REASON).unwrap_or(&said));
            }
            (answer, said) => panic!("{answer:.200?} is not {said:.200?}"),
        }
    }
}

#[tokio::test]
async fn a_compiler_that_crashes_or_lies_is_an_error() {
    let cut = [Vec::new(), head(0, 2, 0)[..5].to_vec(), [&head(0, 2, 0)[..], b"x"].concat()];
    for bytes in cut {
        let error = saying(bytes, false).compile("text").await.unwrap_err();
        let is_cut =
            matches!(&error, ClientError::Exchange(source) if source.kind() == io::ErrorKind::UnexpectedEof);
        assert!(is_cut, "{error:?}");
    }
    for (bytes, is_endless, expected) in [
        (head(0, MOST_BLOB + 1, 0), true, "4194305 bytes are announced where 4194304 are the most"),
        (head(0, 0, MOST_WORDS + 1), true, "65537 bytes are announced"),
        (head(1, 1, 0), true, "1 bytes are announced where 0 are the most"),
        (vec![255], true, "bytes are announced"),
        (head(99, 0, 0), false, "99 is no kind of answer"),
    ] {
        let error = saying(bytes, is_endless).compile("text").await.unwrap_err();
        let ClientError::Exchange(source) = &error else { panic!("{error:?}") };
        assert!(source.to_string().contains(expected), "{source} is not {expected}");
    }
}

#[tokio::test]
async fn of_an_endless_answer_only_the_announced_is_taken() {
    let answer = saying(head(0, 3, 2), true).compile("text").await.unwrap();
    let again = head(0, 3, 2);
    let stderr = String::from_utf8_lossy(&again[3..5]).into_owned();
    assert_eq!(answer, Answer::Compiled { blob: again[..3].to_vec(), stderr });
}

#[tokio::test]
async fn a_compiler_that_does_not_listen_is_an_error() {
    let fake = Fake::new(async |stream| drop(stream));
    let long = "x".repeat(1 << 20);
    // It hangs up in the middle of the request.
    assert!(matches!(fake.compile(&long).await, Err(ClientError::Exchange(_))));

    let nowhere = Client::new(fake.directory.path().join("nowhere"));
    let error = nowhere.compile("text", "").await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    let Fake { directory, tasks } = fake;
    drop(tasks);
    let crashed = Client::new(directory.path().join("socket"));
    let error = crashed.compile("text", "").await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains("does the container `compiler` run?"), "{error}");
}

#[tokio::test]
async fn a_compiler_that_points_elsewhere_is_an_error() {
    let elsewhere = saying(head(3, 0, 0), false);
    let link = elsewhere.directory.path().join("link");
    std::os::unix::fs::symlink(elsewhere.directory.path().join("socket"), &link).unwrap();
    let client = Client::new(link);
    let error = elsewhere.tasks.run_until(client.compile("text", "")).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_too_long_is_not_sent() {
    let fake = saying(head(3, 0, 0), false);
    let error = fake.compile(&"x".repeat((1 << 20) + 1)).await.unwrap_err();
    assert!(matches!(&error, ClientError::Exchange(source) if source.kind() == io::ErrorKind::InvalidInput));
}

#[tokio::test(start_paused = true)]
async fn a_compiler_that_hangs_is_given_up() {
    let hangs = Fake::new(async |stream| {
        std::future::pending::<()>().await;
        drop(stream);
    });
    // The second does not fit what the kernel keeps for a reader.
    for text in ["text".to_owned(), "x".repeat(1 << 20)] {
        let error = hangs.compile(&text).await.unwrap_err();
        assert!(matches!(error, ClientError::Silent(_)), "{error:?}");
    }
    // A byte now and then is no answer.
    let drips = Fake::new(async |mut stream| {
        read_request(&mut stream).await.unwrap();
        stream.write_all(&head(0, MOST_BLOB, 0)).await.unwrap();
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let error = drips.compile("text").await.unwrap_err();
    assert!(matches!(error, ClientError::Silent(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "the compiler did not answer within 60s (see the log of the container `compiler`)"
    );
}
