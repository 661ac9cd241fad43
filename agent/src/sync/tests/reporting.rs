//! What is read and written of the report while the loop runs.

use profiles::report::{Agent, Report, Request};

use super::*;
use crate::examples::PLATFORM;

/// The API server's side.
#[derive(Default)]
struct ApiServer {
    there: Option<Box<Report>>,
    failing: u32,
    /// What was asked, with the problems in what was to be written.
    asked: Vec<String>,
}

type Server = Rc<RefCell<ApiServer>>;

async fn answer(server: Server, request: Request) -> Answer {
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut server = server.borrow_mut();
    let word = match &request {
        Request::Read => "read".to_owned(),
        Request::Write(report) => {
            let codes = report.problems.iter().map(|problem| problem.code.as_str());
            format!("write {} {}", report.totals.profiles, codes.collect::<Vec<_>>().join(" "))
        }
    };
    server.asked.push(word.trim_end().to_owned());
    if server.failing > 0 {
        server.failing -= 1;
        return Answer::Failed;
    }
    match request {
        Request::Read => Answer::Found(server.there.clone()),
        Request::Write(report) => {
            server.there = Some(report);
            Answer::Written
        }
    }
}

fn outlet(server: &Server) -> Outlet {
    let server = server.clone();
    let agent = Agent { version: "1".to_owned(), pod: None };
    Outlet {
        agent,
        platform: PLATFORM,
        ask: Box::new(move |request| answer(server.clone(), request).boxed_local()),
    }
}

/// Runs an agent beside this API server while `script` feeds it events. Returns what was asked meanwhile.
async fn play_with<F>(
    server: &Server,
    script: impl FnOnce(UnboundedSender<Event>, Shared) -> F,
) -> Vec<String>
where
    F: Future<Output = ()>,
{
    let (tell, changes) = unbounded();
    let shared = Rc::new(RefCell::new(World { changes: Some(tell), ..World::default() }));
    let (sender, events) = unbounded();
    let api_server = shared.clone();
    let write_node = move |write| patch(api_server.clone(), write).boxed_local();
    let (host, status) = (FakeHost(shared.clone()), Arc::new(Status::new()));
    let sync = SyncLoop::new(host, None, rules(), vec![events.boxed_local()], changes, write_node, status);
    sync.reporting_to(Some(outlet(server))).run(script(sender, shared)).await.unwrap();
    std::mem::take(&mut server.borrow_mut().asked)
}

/// The Node, and no bundle.
fn start(sender: &UnboundedSender<Event>) {
    send(sender, Event::PodsListed(BTreeMap::new()));
    send(sender, Event::NodeLabels(NodeLabels::default()));
    send(sender, listed(&[]));
}

#[tokio::test(start_paused = true)]
async fn each_change_is_one_write_and_an_idle_agent_writes_nothing() {
    let server = Server::default();
    let asked = play_with(&server, async |sender, _| {
        start(&sender);
        seconds(1).await;
        (0..100).for_each(|number| send(&sender, Event::Applied(bundle(&format!("b{number}")))));
        seconds(2).await;
        send(&sender, Event::Applied(with_content("b0", "{}")));
        seconds(2).await;
        send(&sender, Event::Applied(bundle("b0")));
        seconds(500).await;
    })
    .await;
    assert_eq!(
        asked,
        ["read", "write 0/0", "write 100/100", "write 100/100 missing-default-action", "write 100/100"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_agent_that_finds_all_as_it_was_writes_nothing_and_keeps_since_when() {
    let server = Server::default();
    let first = play_with(&server, async |sender, _| {
        send(&sender, Event::PodsListed(BTreeMap::new()));
        send(&sender, Event::NodeLabels(NodeLabels::default()));
        send(&sender, Event::Listed { namespace: rules().home, bundles: vec![with_content("x", "{}")] });
        seconds(2).await;
    })
    .await;
    assert_eq!(first, ["read", "write 0/1 missing-default-action"]);
    let since = |server: &Server| server.borrow().there.as_ref().unwrap().problems[0].since.clone();
    let before = "2001-02-03T04:05:06Z";
    before.clone_into(&mut server.borrow_mut().there.as_mut().unwrap().problems[0].since);
    let second = play_with(&server, async |sender, _| {
        send(&sender, Event::PodsListed(BTreeMap::new()));
        send(&sender, Event::NodeLabels(NodeLabels::default()));
        seconds(1).await;
        send(&sender, Event::Listed { namespace: rules().home, bundles: vec![with_content("x", "{}")] });
        seconds(300).await;
    })
    .await;
    assert_eq!((second, since(&server).as_str()), (vec!["read".to_owned()], before));
    let third = play_with(&server, async |sender, _| {
        start(&sender);
        seconds(2).await;
        send(&sender, Event::Applied(with_content("x", "{}")));
        seconds(2).await;
    })
    .await;
    assert_eq!(third, ["read", "write 0/0", "write 0/1 missing-default-action"]);
    assert!(since(&server).as_str() > "2026");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_deletes_is_back_after_a_look() {
    let server = Server::default();
    let asked = play_with(&server, async |sender, _| {
        start(&sender);
        seconds(10).await;
        server.borrow_mut().there = None;
        seconds(11 * 60 + 5).await;
        assert!(server.borrow().there.is_some());
    })
    .await;
    assert_eq!(asked, ["read", "write 0/0", "read", "write 0/0"]);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_refuses_is_asked_more_and_more_rarely_and_holds_up_nothing() {
    let server = Server::default();
    server.borrow_mut().failing = 1000;
    let asked = play_with(&server, async |sender, world| {
        start(&sender);
        seconds(1).await;
        send(&sender, Event::Applied(bundle("x")));
        seconds(1).await;
        assert_eq!(world.borrow().done, ["install x/a", "labels +2 -0"]);
        seconds(602).await;
    })
    .await;
    // After 0, 1, 3, 7, 15, 31 and 63 seconds, and then each minute.
    assert_eq!(asked, ["read"; 7 + 9]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_changes_all_the_time_costs_six_writes_a_minute() {
    let server = Server::default();
    let asked = play_with(&server, async |sender, _| {
        start(&sender);
        for number in 0..600 {
            seconds(1).await;
            let content = if number % 2 == 0 { "{}" } else { CONTENT };
            send(&sender, Event::Applied(with_content("x", content)));
        }
    })
    .await;
    let writes = asked.iter().filter(|word| word.starts_with("write")).count();
    assert!((60..=71).contains(&writes), "{writes}");
}

#[tokio::test(start_paused = true)]
async fn without_a_node_and_after_the_end_nothing_is_asked() {
    let server = Server::default();
    let asked = play_with(&server, async |sender, _| {
        send(&sender, listed(&["x"]));
        seconds(60).await;
        assert!(server.borrow().asked.is_empty());
        send(&sender, Event::PodsListed(BTreeMap::new()));
        send(&sender, Event::NodeLabels(NodeLabels::default()));
        seconds(1).await;
        send(&sender, Event::NodeGone);
        seconds(1).await;
        send(&sender, Event::Applied(with_content("x", "{}")));
        seconds(60).await;
        send(&sender, Event::PodsListed(BTreeMap::new()));
        send(&sender, Event::NodeLabels(NodeLabels::default()));
        seconds(1).await;
        send(&sender, Event::Applied(bundle("y")));
    })
    .await;
    assert_eq!(asked, ["read", "write 1/1", "read", "write 1/1 missing-default-action"]);
}
