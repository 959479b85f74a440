//! The page at `/`, in a real Chromium, through a rollout.

use anyhow::{Context, ensure};
use graceful_api::names;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::harness::app::{AppSpec, NAME};
use crate::harness::browser::{Browser, Look, pictures};
use crate::harness::scene::Scene;
use crate::harness::wait::eventually;
use crate::harness::{ROLLS, STARTS};
use crate::wire::{LoadSpec, Speaks, create_task};

const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
/// Two pods have four places each: the last of ten tasks of ten seconds are seen to wait.
const PLACES: &str = "4";
const TASKS: usize = 10;

const WIDE: Look = Look { width: 1280, height: 900, scale: 1.0, dark: false };
const DARK: Look = Look { dark: true, ..WIDE };
const NARROW: Look = Look { width: 320, height: 720, scale: 2.0, dark: false };

/// Writes down, from the page itself, each state that each task is shown in and each numbered line of the event log, in
/// the order in which they come.
const RECORD: &str = r#"
    const seen = window.seen = { states: {}, numbers: [], words: [] };
    const state = (row) => {
        const states = (seen.states[row.dataset.id] ??= []);
        if (row.dataset.state && states[states.length - 1] !== row.dataset.state) states.push(row.dataset.state);
    };
    const rows = document.querySelector('#rows');
    new MutationObserver((changes) => {
        for (const { target, addedNodes } of changes) for (const row of [target, ...addedNodes]) if (row.dataset?.id) state(row);
    }).observe(rows, { childList: true, subtree: true, attributes: true, attributeFilter: ['data-state'] });
    new MutationObserver((changes) => {
        const lines = changes.flatMap(({ addedNodes }) => [...addedNodes].reverse());
        for (const line of lines) {
            const words = line.lastElementChild.textContent;
            const number = /^#(\d+) /.exec(words);
            if (number) seen.numbers.push(Number(number[1])); else seen.words.push(words);
        }
    }).observe(document.querySelector('#log'), { childList: true });
    const lamp = document.querySelector('#lamp');
    new MutationObserver(() => seen.words.push(`lamp: ${lamp.textContent}`)).observe(lamp, { childList: true, characterData: true, subtree: true });
"#;

/// What a task of each kind of end looks like, for the picture: one that is dead, one whose time has not come, one
/// that was called off.
const VARIETY: &str = r#"
    const hand_in = (task) => fetch('/v1/tasks', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(task) }).then((answer) => answer.json());
    await hand_in({ kind: 'sleep', input: { seconds: 60 }, timeout_seconds: 0.5, max_attempts: 1, client_id: 'nightly' });
    await hand_in({ kind: 'sleep', delay_seconds: 600, priority: 5, client_id: 'reports' });
    const { id } = await hand_in({ kind: 'sleep', delay_seconds: 600 });
    await fetch(`/v1/tasks/${id}/cancel`, { method: 'POST' });
"#;

/// A queue that waits, and three tasks in it whose time has not come.
const MAIL: &str = r#"
    const json = { 'content-type': 'application/json' };
    const ask = async (path, method, body) => {
        const answer = await fetch(path, { method, headers: json, body: JSON.stringify(body) });
        if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
    };
    await ask('/v1/queues/mail', 'PUT', { concurrency: 2, rate_per_second: 5 });
    const tasks = [1, 2, 3].map(() => ({ kind: 'sleep', queue: 'mail', delay_seconds: 600 }));
    await ask('/v1/bulk/submit', 'POST', { tasks });
"#;

/// One more in that queue.
const ANOTHER: &str = r#"
    const task = { kind: 'sleep', queue: 'mail', delay_seconds: 600 };
    const answer = await fetch('/v1/tasks', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(task) });
    if (!answer.ok) throw new Error(`POST /v1/tasks: ${answer.status} ${await answer.text()}`);
"#;

/// A person at the keyboard hands in tasks, sees them wait, run and end, and stays in the picture while the pod that the
/// page talks to is replaced: told, closed with 1012, back on a new pod, with no event missed and no error.
pub(super) async fn page_through_a_rollout(scene: &Scene) -> anyhow::Result<()> {
    let (given, ..) = scene.steps();
    let database = scene.world.databases.take().await?;
    let spec = AppSpec::tasks(&scene.world).postgres(&database.url).replicas(2).task_seconds("2-4");
    given.app(spec.env("GRACEFUL_CONCURRENCY", PLACES)).await?;
    with_a_browser(scene, async |browser| look_on(scene, browser).await).await
}

/// The same where each pod has a queue of its own, and a Service that keeps a browser with one pod: the page finds its
/// tasks again and can cancel them, and says that the numbers begin anew as it comes to another pod.
pub(super) async fn page_on_queues_of_their_own(scene: &Scene) -> anyhow::Result<()> {
    let (given, ..) = scene.steps();
    let spec = AppSpec::tasks(&scene.world).set("/service/sessionAffinity", "ClientIP").replicas(3);
    given.app(spec.task_seconds("1-3").env("GRACEFUL_CONCURRENCY", PLACES)).await?;
    with_a_browser(scene, async |browser| look_on_queues(scene, browser).await).await
}

async fn with_a_browser(
    scene: &Scene,
    look_on: impl AsyncFnOnce(&Browser) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let browser = scene.step("given a browser", Browser::start()).await?;
    let result = look_on(&browser).await;
    if result.is_err() {
        // As it was when it failed.
        let name = format!("page-failed-{}.png", scene.name);
        browser.picture(WIDE, &pictures().join(name)).await.ok();
        scene.say(&format!("the page: {:?}", browser.text("body").await.unwrap_or_default()));
        scene.say(&format!("its console: {:?}", browser.complaints().await.unwrap_or_default()));
    }
    browser.close().await.ok();
    result
}

async fn look_on_queues(scene: &Scene, browser: &Browser) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    see_tasks_through(scene, browser).await?;
    scene.step("and one that waits is cancelled with its button", cancel_one(browser)).await?;
    scene
        .step(
            "and nothing is offered that may meet another pod",
            eventually("said", STARTS, || apart(browser)),
        )
        .await?;

    let before = browser.text("#pod").await?;
    // A little more than the places of one pod get done (4 of 2 s each): some of it waits, whatever chance brings.
    given.load(LoadSpec { rate_per_second: 2.2, ..load() }).await?;
    when.template_changes("second").await?;
    then.rolled_out().await?;
    moved(scene, browser, &before).await?;
    told(browser, &["1012", "Moved from ", "another queue", "lamp: Pod is draining", "lamp: Live"]).await?;
    scene.step("when a task is handed in to the new pod", hand_in_one(browser)).await?;
    then.nothing_lost().await?;
    Ok(())
}

/// Of a task whose time has not come.
async fn cancel_one(browser: &Browser) -> anyhow::Result<()> {
    let script = "const answer = await fetch('/v1/tasks', { method: 'POST', headers: { 'content-type': 'application/json' }, \
                  body: '{\"delay_seconds\": 600}' }); return (await answer.json()).id";
    let id = browser.ask(&format!("return (async () => {{ {script} }})()"), Vec::new()).await?;
    let id = id.as_str().context("the task has no id")?.to_owned();
    let press = format!("document.querySelector(`[data-id=\"{id}\"] .act button`)?.click()");
    eventually("it is cancelled", STARTS, || async {
        browser.ask(&press, Vec::new()).await?;
        let seen = browser.ask("return window.seen.states", Vec::new()).await?;
        let states = seen[&id].as_array().cloned().unwrap_or_default();
        ensure!(states.last().is_some_and(|state| state == "cancelled"), "it was seen {states:?}");
        Ok(())
    })
    .await
}

/// What is done to a whole queue is not offered, and the page says why.
async fn apart(browser: &Browser) -> anyhow::Result<()> {
    let script = "const shown = (nodes) => [...nodes].filter((node) => node.checkVisibility()).map((node) => node.textContent); \
                  return ['#changes button, #queues .act button', '#changes-apart, #queues-apart'].map((which) => shown(document.querySelectorAll(which)))";
    let [offered, said]: [Vec<String>; 2] = serde_json::from_value(browser.ask(script, Vec::new()).await?)?;
    let why = said.iter().filter(|words| words.starts_with("Each pod has a queue of its own here"));
    ensure!(offered.is_empty() && why.count() == 2, "it offers {offered:?} and says {said:?}");
    Ok(())
}

async fn look_on(scene: &Scene, browser: &Browser) -> anyhow::Result<()> {
    let (given, when, then) = scene.steps();
    see_tasks_through(scene, browser).await?;
    browser.ask(&format!("return (async () => {{ {VARIETY} }})()"), Vec::new()).await?;
    scene.step("then a count leads to its tasks, and the address to both", lead(browser)).await?;
    scene.step("then the plot shows what ended", eventually("drawn", STARTS, || drawn(browser))).await?;
    scene.step("then a queue is paused and resumed with its button", pause_a_queue(browser)).await?;
    scene.step("then all of it are cancelled and deleted together", change_all(browser)).await?;

    let before = browser.text("#pod").await?;
    given.load(load()).await?;
    when.template_changes("second").await?;
    scene
        .step(
            format!("then the page says that {before} is going"),
            eventually("said", ROLLS, || going(browser, &before)),
        )
        .await?;
    browser.picture(WIDE, &pictures().join("page-drain.png")).await?;
    then.rolled_out().await?;
    let after = moved(scene, browser, &before).await?;

    scene.step("then no event is missing and nothing was an error", nothing_missed(browser)).await?;
    for (look, name) in [(DARK, "page-dark.png"), (NARROW, "page-narrow.png"), (WIDE, "page.png")] {
        let path = pictures().join(name);
        browser.picture(look, &path).await?;
        fits(browser).await.context(name)?;
    }
    scene.say(&format!("from {before} to {after}; pictures are in {}", pictures().display()));
    then.nothing_lost().await?;
    Ok(())
}

/// Some tasks a second for six places and more, so that events come while the page is between two pods.
fn load() -> LoadSpec {
    LoadSpec {
        target: format!("http://{NAME}"),
        clients: 4,
        fresh: false,
        rate_per_second: 2.5,
        sockets: 0,
        numbered: false,
        speaks: Speaks::Tasks,
        seconds: 600,
        submit_path: create_task(),
    }
}

/// The Service's address, which this machine reaches on its own cluster.
async fn address(scene: &Scene) -> anyhow::Result<String> {
    let service = scene.api::<Service>().get(NAME).await?;
    service.spec.and_then(|spec| spec.cluster_ip).context("the Service has no address")
}

async fn open(browser: &Browser, url: &str) -> anyhow::Result<()> {
    browser.open(url).await?;
    browser.ask(RECORD, Vec::new()).await?;
    eventually("the page is connected", STARTS, || async {
        ensure!(browser.attribute("body", "data-link").await?.as_deref() == Some("live"), "not yet");
        Ok(())
    })
    .await?;
    let pod = browser.text("#pod").await?;
    ensure!(pod.starts_with(NAME), "the page does not name its pod but `{pod}`");
    Ok(())
}

/// Tab to the field, the seconds, Enter, and Enter again for each other task.
async fn hand_in(browser: &Browser) -> anyhow::Result<()> {
    for _ in 0..40 {
        browser.press(TAB).await?;
        if browser.ask("return document.activeElement.id", Vec::new()).await? == "seconds" {
            break;
        }
    }
    ensure!(
        browser.ask("return document.activeElement.id", Vec::new()).await? == "seconds",
        "Tab does not lead to the field `Seconds`"
    );
    // Longer than handing all of them in takes, also on a busy machine: the last ones meet full places.
    browser.press("10").await?;
    for _ in 0..TASKS {
        hand_in_one(browser).await?;
    }
    Ok(())
}

/// Enter, in the field.
async fn hand_in_one(browser: &Browser) -> anyhow::Result<()> {
    let said = browser.text("#said").await?;
    browser.press(ENTER).await?;
    eventually("it is accepted", STARTS, || async {
        let now = browser.text("#said").await?;
        ensure!(now != said && now.ends_with("is queued."), "the form says {now:?}");
        Ok(())
    })
    .await
}

/// Opens the page, and hands in tasks until one has been through all its states.
async fn see_tasks_through(scene: &Scene, browser: &Browser) -> anyhow::Result<()> {
    let url = format!("http://{}/", address(scene).await?);
    scene.step(format!("when the page is opened at {url}"), open(browser, &url)).await?;
    let words = format!("when {TASKS} tasks are handed in with the keyboard");
    scene.step(words, hand_in(browser)).await?;
    scene
        .step("then one is seen to wait, run and succeed", eventually("seen", STARTS, || waited(browser)))
        .await
}

/// A task was shown in each of its states, in order.
async fn waited(browser: &Browser) -> anyhow::Result<()> {
    let seen = browser.ask("return window.seen.states", Vec::new()).await?;
    let whole = json!(["queued", "running", "succeeded"]);
    ensure!(
        seen.as_object().is_some_and(|tasks| tasks.values().any(|states| *states == whole)),
        "seen: {seen}"
    );
    Ok(())
}

/// The count of the dead is pressed, a task is opened, and the back button goes both steps back.
async fn lead(browser: &Browser) -> anyhow::Result<()> {
    let view = "return [location.search, [...document.querySelectorAll('#rows [data-state]')].map((row) => row.dataset.state), document.querySelector('#details').open]";
    let at = async |what: &str, search: &str, only: Option<&str>, opened: bool| {
        eventually(what, STARTS, || async {
            let (seen, states, open): (String, Vec<String>, bool) =
                serde_json::from_value(browser.ask(view, Vec::new()).await?)?;
            ensure!(seen.starts_with(search) && (opened || seen == search), "the address is {seen:?}");
            ensure!(open == opened, "a task is open: {open}");
            ensure!(!states.is_empty(), "no task is listed");
            ensure!(states.iter().all(|state| only.is_none_or(|only| state == only)), "listed: {states:?}");
            Ok(())
        })
        .await
    };
    eventually("one is dead", STARTS, || async {
        ensure!(browser.text("#count-dead").await? == "1", "not yet");
        Ok(())
    })
    .await?;
    browser.ask("document.querySelector('[data-show=dead]').click()", Vec::new()).await?;
    at("the dead are listed", "?state=dead", Some("dead"), false).await?;
    browser.ask("document.querySelector('#rows .name').click()", Vec::new()).await?;
    at("one is open", "?state=dead&task=", Some("dead"), true).await?;
    browser.ask("history.back()", Vec::new()).await?;
    at("it is closed", "?state=dead", Some("dead"), false).await?;
    browser.ask("history.back()", Vec::new()).await?;
    at("all are listed", "", None, false).await
}

/// Presses what a selector finds, once it is there to be pressed. A click whose answer is late must not be made again, as
/// a second one may undo the first.
async fn press(browser: &Browser, selector: &str) -> anyhow::Result<()> {
    let find = "const button = document.querySelector(arguments[0]);";
    let can = format!("{find} return Boolean(button && !button.hidden && button.ariaDisabled !== 'true')");
    eventually("it can be pressed", STARTS, || async {
        ensure!(browser.ask(&can, vec![json!(selector)]).await? == true, "not yet: {selector}");
        Ok(())
    })
    .await?;
    let click = format!("{find} button?.click(); return Boolean(button)");
    ensure!(browser.ask(&click, vec![json!(selector)]).await? == true, "it is gone: {selector}");
    Ok(())
}

/// Waits until the text of an element begins so.
async fn says(browser: &Browser, selector: &str, words: &str) -> anyhow::Result<()> {
    eventually(words, STARTS, || async {
        let said = browser.text(selector).await?;
        ensure!(said.starts_with(words), "{selector} says {said:?}");
        Ok(())
    })
    .await
}

async fn pause_a_queue(browser: &Browser) -> anyhow::Result<()> {
    browser.ask(&format!("return (async () => {{ {MAIL} }})()"), Vec::new()).await?;
    for (column, words) in [("Waiting", "03 delayed"), ("Concurrency", "2"), ("Rate", "5 a second5 at once")]
    {
        says(browser, &format!("[data-queue=mail] [data-name={column}]"), words).await?;
    }
    let button = "[data-queue=mail] .act button";
    for (pressed, paused, next) in [("Pause", "yes", "Resume"), ("Resume", "no", "Pause")] {
        says(browser, button, pressed).await?;
        press(browser, button).await?;
        says(browser, "[data-queue=mail] .paused", paused).await?;
        says(browser, button, next).await?;
    }
    Ok(())
}

/// Tasks of the one queue, by the list's filter: counted, asked about, changed.
async fn change_all(browser: &Browser) -> anyhow::Result<()> {
    press(browser, "[data-queue=mail] .name").await?;
    // One comes between the count and the yes: no more are changed than the page asked about.
    press(browser, "[data-change=cancel]").await?;
    says(browser, "#bulk-go", "Cancel 3 tasks").await?;
    browser.ask(&format!("return (async () => {{ {ANOTHER} }})()"), Vec::new()).await?;
    press(browser, "#bulk-go").await?;
    says(browser, "#bulk-said", "3 tasks were cancelled, or asked to stop. There are others now.").await?;
    says(browser, "#bulk-go", "Count them again").await?;
    press(browser, "#bulk-leave").await?;
    for (change, asked, button, done) in [
        (
            "cancel",
            "Cancel 1 task that waits or runs in queue mail?",
            "Cancel 1 task",
            "1 task was cancelled",
        ),
        (
            "delete",
            "Delete 4 tasks that have ended in queue mail?",
            "Delete 4 tasks",
            "4 tasks were deleted.",
        ),
    ] {
        press(browser, &format!("[data-change={change}]")).await?;
        says(browser, "#bulk-title", asked).await?;
        says(browser, "#bulk-go", button).await?;
        press(browser, "#bulk-go").await?;
        says(browser, "#bulk-said", done).await?;
        press(browser, "#bulk-leave").await?;
    }
    says(browser, "#empty", "No tasks in queue mail").await?;
    browser.ask("history.back()", Vec::new()).await?;
    eventually("all are listed", STARTS, || async {
        let rows = browser
            .ask("return [location.search, document.querySelectorAll('#rows .row').length]", Vec::new())
            .await?;
        ensure!(rows[0] == "" && rows[1].as_u64() > Some(0), "listed: {rows}");
        Ok(())
    })
    .await
}

async fn drawn(browser: &Browser) -> anyhow::Result<()> {
    let said = browser.attribute("#plot-ended", "aria-label").await?.unwrap_or_default();
    ensure!(said.contains(" ended, at most ") && !said.contains(" 0 tasks ended"), "the plot says {said:?}");
    Ok(())
}

async fn going(browser: &Browser, pod: &str) -> anyhow::Result<()> {
    ensure!(browser.attribute("body", "data-link").await?.as_deref() == Some("draining"), "the pod serves");
    let words = browser.text("#handover-title").await?;
    ensure!(words == format!("{pod} is going"), "it says {words:?}");
    Ok(())
}

/// Waits until it is on another pod; its name.
async fn moved(scene: &Scene, browser: &Browser, before: &str) -> anyhow::Result<String> {
    let after = scene
        .step("then it is back on a new pod", eventually("back", STARTS, || back(scene, browser)))
        .await?;
    ensure!(after != before, "it is still on {before}");
    Ok(after)
}

/// Connected to a pod that serves and is of the newest revision; its name.
async fn back(scene: &Scene, browser: &Browser) -> anyhow::Result<String> {
    let link = browser.attribute("body", "data-link").await?;
    ensure!(link.as_deref() == Some("live"), "the connection is {link:?}");
    let pod = browser.text("#pod").await?;
    let serves = scene.pods().await?.iter().any(|p| {
        p.name_any() == pod
            && p.labels().get(names::SERVING_LABEL).is_some_and(|label| label == names::SERVING)
    });
    ensure!(serves, "{pod} does not serve");
    Ok(pod)
}

async fn nothing_missed(browser: &Browser) -> anyhow::Result<()> {
    told(browser, &["Lingering", "1012", "Moved from ", "lamp: Pod is draining", "lamp: Live"]).await?;
    let numbers: Vec<u64> =
        serde_json::from_value(browser.ask("return window.seen.numbers", Vec::new()).await?)?;
    ensure!(numbers.len() > TASKS, "only {} events were seen", numbers.len());
    let hole = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
    ensure!(hole.is_none(), "the numbers jump: {hole:?}");
    Ok(())
}

/// The page has said each of this, without an error and without a gap.
async fn told(browser: &Browser, wanted: &[&str]) -> anyhow::Result<()> {
    let complaints = browser.complaints().await?;
    ensure!(complaints.is_empty(), "the console says {complaints:?}");
    let gaps = browser.attribute("#gaps", "data-gaps").await?;
    ensure!(gaps.as_deref() == Some("0"), "the page says that {gaps:?} events are missing");
    let seen = browser.ask("return window.seen.words", Vec::new()).await?;
    let words: Vec<&str> = seen.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for wanted in wanted {
        ensure!(words.iter().any(|line| line.contains(wanted)), "no line says {wanted:?}: {words:?}");
    }
    Ok(())
}

/// Nothing sticks out to the side.
async fn fits(browser: &Browser) -> anyhow::Result<()> {
    let script = "const page = document.documentElement; return [page.scrollWidth, page.clientWidth]";
    let widths: [u64; 2] = serde_json::from_value(browser.ask(script, Vec::new()).await?)?;
    ensure!(widths[0] <= widths[1], "the page is {} wide on a screen of {}", widths[0], widths[1]);
    Ok(())
}
