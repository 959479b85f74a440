//! Tokens, of an implementation that verifies them. One that is asked over loopback takes anything, as it should; so these are held over another address.

use serde_json::{Value, json};

use super::{Need, Rule};
use crate::outcome::{Not, Outcome, must};
use crate::pod::{ANSWERS_WITHIN, Reply, Token};
use crate::run::Run;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "loopback-needs-no-token",
        says: "Over loopback PUT and DELETE need no token, so that a preStop hook needs no key; X-Forwarded-For makes nobody a stranger.",
        needs: &[Need::Tokens],
        hold: |run| Box::pin(loopback(run)),
    },
    Rule {
        name: "token-is-required",
        says: "From elsewhere PUT and DELETE without a token are a 401 with WWW-Authenticate, whatever X-Forwarded-For says, and change nothing; GET needs none.",
        needs: &[Need::Tokens],
        hold: |run| Box::pin(required(run)),
    },
    Rule {
        name: "token-is-for-this-alone",
        says: "A token with another key, algorithm, signature, issuer, pod, boot id, action, epoch, or one that has expired, is a 401 that names the claim.",
        needs: &[Need::Tokens],
        hold: |run| Box::pin(for_this_alone(run)),
    },
    Rule {
        name: "token-again-changes-nothing",
        says: "A token that is sent again is answered as before while its drain lasts, and with 409 once anything later was heard.",
        needs: &[Need::Tokens],
        hold: |run| Box::pin(again(run)),
    },
];

async fn loopback(run: &Run) -> Outcome {
    run.serving().await?;
    if !run.pod.over_loopback() {
        return Err(Not::Held(
            "it was not asked over loopback: give http://127.0.0.1 for this one".to_owned(),
        ));
    }
    let epoch = run.pod.next_epoch();
    let reply = put(run, epoch, Token::None).await?;
    must(reply.code == 202, || {
        format!("a PUT over loopback without a token was answered with {}", reply.told())
    })?;
    let reply = forwarded_for(run, run.pod.next_epoch(), "10.0.0.7").await?;
    must(reply.code == 202, || {
        format!("a PUT over loopback with X-Forwarded-For: 10.0.0.7 was answered with {}", reply.told())
    })?;
    let epoch = run.pod.next_epoch();
    let reply = run.pod.delete_query(&format!("?epoch={epoch}"), Token::None).await?;
    must(reply.code == 200, || {
        format!("a DELETE over loopback without a token was answered with {}", reply.told())
    })
}

fn elsewhere(run: &Run) -> Outcome {
    if run.pod.over_loopback() {
        let why = "it was asked over loopback, where no token is needed: give another address of its machine";
        return Err(Not::Held(why.to_owned()));
    }
    Ok(())
}

async fn put(run: &Run, epoch: u64, token: Token) -> Outcome<Reply> {
    run.pod.put_body(json!({"epoch": epoch, "lingerSeconds": 0}).to_string(), token).await
}

/// Without a token, by whom a header says that it is.
async fn forwarded_for(run: &Run, epoch: u64, whom: &str) -> Outcome<Reply> {
    let body = json!({"epoch": epoch, "lingerSeconds": 0}).to_string();
    let header = [("x-forwarded-for", whom)];
    run.pod.ask("PUT", "", &header, body.into(), ANSWERS_WITHIN).await.map_err(Not::Kept)
}

async fn unchanged(run: &Run, epoch: u64) -> Outcome {
    let status = run.pod.get().await?.status;
    must(status.accepting && status.epoch == epoch, || format!("and now it is {}", status.told()))
}

async fn required(run: &Run) -> Outcome {
    run.serving().await?;
    elsewhere(run)?;
    let before = run.pod.get().await?.status.epoch;
    let epoch = run.pod.next_epoch();
    let without = put(run, epoch, Token::None).await?;
    let resumed = run.pod.delete_query(&format!("?epoch={epoch}"), Token::None).await?;
    let forwarded = forwarded_for(run, epoch, "127.0.0.1").await?;
    let replies =
        [("a PUT", without), ("a DELETE", resumed), ("a PUT with X-Forwarded-For: 127.0.0.1", forwarded)];
    for (what, reply) in replies {
        must(reply.code == 401, || format!("{what} without a token was answered with {}", reply.told()))?;
        let asks = reply.header("www-authenticate").unwrap_or("none");
        must(asks.to_ascii_lowercase().starts_with("bearer"), || format!("its WWW-Authenticate is {asks}"))?;
    }
    unchanged(run, before).await
}

/// A token with one thing wrong, and what the problem document names.
fn wrong(run: &Run, claims: &Value) -> Vec<(&'static str, String)> {
    let signer = run.pod.signer();
    let header = signer.header();
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        signer.sign(&header, &claims)
    };
    let headed = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        signer.sign(&header, claims)
    };
    let number = |name: &str| claims[name].as_i64().unwrap_or_default();
    let (good, another) = (signer.sign(&header, claims), with("epoch", json!(0)));
    let (signed, _) = good.rsplit_once('.').unwrap_or_default();
    let (_, of_another) = another.rsplit_once('.').unwrap_or_default();
    vec![
        ("alg", headed("alg", json!("none"))),
        ("alg", headed("alg", json!("HS256"))),
        ("crit", headed("crit", json!(["exp"]))),
        ("kid", headed("kid", json!("stranger"))),
        ("signature", format!("{signed}.{of_another}")),
        ("iss", with("iss", json!("somebody"))),
        ("sub", with("sub", json!("another-pod"))),
        ("boot", with("boot", json!("00000000-0000-4000-8000-000000000000"))),
        ("action", with("action", json!("resume"))),
        ("epoch", with("epoch", json!(number("epoch") + 1))),
        // Ten minutes, far beyond the leeway: `exp` is a minute ahead.
        ("exp", with("exp", json!(number("exp") - 660))),
    ]
}

async fn for_this_alone(run: &Run) -> Outcome {
    run.serving().await?;
    elsewhere(run)?;
    let before = run.pod.get().await?.status.epoch;
    let epoch = run.pod.next_epoch();
    let claims = run.pod.claims("drain", epoch).await;
    for (field, token) in wrong(run, &claims) {
        let reply = put(run, epoch, Token::This(token.clone())).await?;
        // Of crit the protocol says no more than that it is refused.
        must(reply.code == 401 && (field == "crit" || reply.field() == Some(field)), || {
            format!(
                "a token whose {field} is wrong was answered with {}, not 401 with field {field}",
                reply.told()
            )
        })?;
    }
    for garbage in ["", "x", "a.b.c"] {
        let reply = put(run, epoch, Token::This(garbage.to_owned())).await?;
        must(reply.code == 401, || format!("the token {garbage:?} was answered with {}", reply.told()))?;
    }
    unchanged(run, before).await?;
    let good = run.pod.signer().sign(&run.pod.signer().header(), &claims);
    let reply = put(run, epoch, Token::This(good)).await?;
    must(reply.code == 202, || {
        format!("a good token was answered with {}; does it know the key?", reply.told())
    })
}

async fn again(run: &Run) -> Outcome {
    run.serving().await?;
    elsewhere(run)?;
    let epoch = run.pod.next_epoch();
    let claims = run.pod.claims("drain", epoch).await;
    let token = Token::This(run.pod.signer().sign(&run.pod.signer().header(), &claims));
    for time in ["first", "second"] {
        let reply = put(run, epoch, token.clone()).await?;
        must(reply.code == 202, || format!("its {time} use was answered with {}", reply.told()))?;
    }
    run.pod.delete(run.pod.next_epoch()).await?;
    let reply = put(run, epoch, token).await?;
    must(reply.code == 409, || format!("after a resume it was answered with {}", reply.told()))
}
