//! The scenario of all clients that are made of the document, in Rust. MESSENGER_URL names a
//! server of its own. The steps have the same names in every language.

use std::fmt::Debug;

use anyhow::{Context, Result, bail};
use messenger::types::{
    AuthResult, Changes, DirectRequest, EnvelopeAuthResult, EnvelopeMessage, ErrorBody,
    ErrorEnvelope, LoginRequest, RefreshRequest, RegisterRequest, SendRequest, TokenPair,
};
use messenger::{Client, Error, ResponseValue};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde_json::json;
use uuid::Uuid;

/// The client.
#[allow(dead_code, unused_imports, reason = "the scenario needs a part of it")]
#[allow(clippy::all, mismatched_lifetime_syntaxes, reason = "generated")]
mod messenger {
    include!(concat!(env!("OUT_DIR"), "/messenger.rs"));
}

const PASSWORD: &str = "correct horse battery staple";
const NOBODY: Uuid = Uuid::from_u128(0x01989f70_0000_7000_8000_000000000000);

/// What a call brings, which must be a success with this status.
fn succeeds<T>(status: u16, answer: Result<ResponseValue<T>, Error<ErrorEnvelope>>) -> Result<T> {
    let answer = answer?;
    assert_eq!(answer.status(), status);
    Ok(answer.into_inner())
}

/// How a call fails: its error, which must come with this status.
fn fails<T: Debug>(
    status: u16,
    answer: Result<ResponseValue<T>, Error<ErrorEnvelope>>,
) -> Result<ErrorBody> {
    match answer {
        Err(Error::ErrorResponse(failure)) => {
            assert_eq!(failure.status(), status);
            Ok(failure.into_inner().error)
        }
        Err(other) => Err(other.into()),
        Ok(answer) => bail!("{:?} is no failure", answer.into_inner()),
    }
}

/// What a client does about an error: by its code, and by its status if the code is unknown.
fn handle(status: u16, error: &ErrorBody) -> &'static str {
    match error.code.as_str() {
        "blocked" => "say that they are not reached",
        "conversation_not_found" => "forget the conversation",
        "invalid_credentials" | "invalid_refresh_token" | "invalid_token" => "log in",
        "username_taken" => "choose another name",
        "validation_error" => "correct it",
        _ if status >= 500 => "try again",
        _ => "give up",
    }
}

fn step(name: &str) {
    println!("rust: {name}");
}

/// A client of the server with an access token.
fn client(url: &str, token: &str) -> Result<Client> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {token}").parse()?);
    let client = reqwest::Client::builder().default_headers(headers);
    Ok(Client::new_with_client(url, client.build()?))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let url = &std::env::var("MESSENGER_URL").context("MESSENGER_URL names the server")?;
    let anybody = &Client::new(url);

    step("register");
    let registering = async |username: &str| -> Result<_> {
        let body = RegisterRequest {
            username: username.parse()?,
            password: PASSWORD.parse()?,
            display_name: None,
        };
        Ok(anybody.register(&body).await)
    };
    let alice: AuthResult = succeeds(201, registering("alice").await?)?.data;
    let bob: AuthResult = succeeds(201, registering("bob").await?)?.data;
    assert_eq!(alice.user.username, "alice");
    assert_ne!(alice.user.id, bob.user.id);
    let error = fails(409, registering("ALICE").await?)?;
    assert_eq!(handle(409, &error), "choose another name");

    step("log in");
    let logging_in = async |password: &str| {
        let body = LoginRequest {
            username: "alice".to_owned(),
            password: password.to_owned(),
        };
        anybody.login(&body).await
    };
    let error = fails(401, logging_in("wrong horse").await)?;
    assert_eq!(error.code, "invalid_credentials");
    assert_eq!(handle(401, &error), "log in");
    let login: AuthResult = succeeds(200, logging_in(PASSWORD).await)?.data;
    assert_eq!(login.user.id, alice.user.id);
    assert_eq!(login.tokens.token_type, "bearer");

    step("refresh");
    type Refreshed = Result<ResponseValue<EnvelopeAuthResult>, Error<ErrorEnvelope>>;
    let refreshing = async |tokens: &TokenPair| -> Result<Refreshed> {
        let body = RefreshRequest {
            refresh_token: tokens.refresh_token.parse()?,
        };
        Ok(anybody.refresh(&body).await)
    };
    let fresh: AuthResult = succeeds(200, refreshing(&login.tokens).await?)?.data;
    assert_ne!(fresh.tokens.access_token, login.tokens.access_token);
    assert_ne!(fresh.tokens.refresh_token, login.tokens.refresh_token);
    let fresh = client(url, &fresh.tokens.access_token)?;
    assert_eq!(succeeds(200, fresh.me().await)?.data.id, alice.user.id);
    let error = fails(401, refreshing(&login.tokens).await?)?;
    assert_eq!(error.code, "invalid_refresh_token");
    // A token that is used twice may be stolen: its session has ended.
    let error = fails(401, fresh.me().await)?;
    assert_eq!(error.code, "invalid_token");
    assert_eq!(handle(401, &error), "log in");

    let alices = &client(url, &alice.tokens.access_token)?;
    let bobs = &client(url, &bob.tokens.access_token)?;

    step("open a conversation");
    let body = DirectRequest {
        other_user_id: bob.user.id,
    };
    let conversation = succeeds(200, alices.open_direct_conversation(&body).await)?.data;
    assert_eq!(conversation.type_, "direct");
    let body = DirectRequest {
        other_user_id: alice.user.id,
    };
    let same = succeeds(200, bobs.open_direct_conversation(&body).await)?.data;
    assert_eq!(same.id, conversation.id);

    step("start");
    let start = succeeds(200, bobs.bootstrap(Some(200.try_into()?), None).await)?.data;
    assert!(!start.has_more);
    let ids: Vec<Uuid> = start.conversations.iter().map(|it| it.id).collect();
    assert_eq!(ids, [conversation.id]);
    assert!(start.recent_messages.is_empty());

    step("send twice with one id");
    let client_message_id = "01989f70-0f5e-7c1d-9a44-0d8e2c5b7f10";
    type Sent = Result<ResponseValue<EnvelopeMessage>, Error<ErrorEnvelope>>;
    let sending = async |content: &str, client_message_id: &str| -> Result<Sent> {
        let body = SendRequest {
            attachment_ids: None,
            client_message_id: client_message_id.parse()?,
            content: content.parse()?,
            mentions: None,
            metadata: None,
            reply_to: None,
        };
        Ok(alices.send_message(&conversation.id, &body).await)
    };
    let first = succeeds(201, sending("Good morning!", client_message_id).await?)?.data;
    let second = succeeds(200, sending("Good morning!", client_message_id).await?)?.data;
    assert_eq!(json!(second), json!(first));
    assert_eq!(first.seq, 1);
    assert_eq!(first.client_message_id, client_message_id);
    assert_eq!(first.sender_id, alice.user.id);
    assert_eq!(first.content, "Good morning!");
    assert_eq!(first.edited_at, None);
    assert_eq!(first.metadata, None);

    step("sync by cursor");
    let changed = async |cursor: String| -> Result<Changes> {
        let page = bobs.changes(None, Some(&cursor), None, None, None, None);
        Ok(succeeds(200, page.await)?.data)
    };
    let page = changed(start.next_cursor).await?;
    assert_eq!(json!(page.messages), json!([first]));
    assert_eq!(page.conversations[0].unread_count, 1);
    assert!(!page.has_more);
    let nothing = changed(page.next_cursor.context("a sync by cursor goes on")?).await?;
    assert!(nothing.messages.is_empty() && !nothing.has_more);

    step("handle errors by their codes");
    let key = client_message_id.parse()?;
    succeeds(200, bobs.block(&alice.user.id, Some(&key)).await)?;
    let another = "01989f70-0f5e-7c1d-9a44-0d8e2c5b7f11";
    let error = fails(403, sending("Are you there?", another).await?)?;
    assert_eq!(handle(403, &error), "say that they are not reached");
    let error = fails(404, alices.get_conversation(&NOBODY).await)?;
    assert_eq!(handle(404, &error), "forget the conversation");
    let error = fails(422, sending(&"x".repeat(2_001), client_message_id).await?)?;
    assert_eq!(handle(422, &error), "correct it");
    let expected = json!([{"loc": ["body", "content"], "msg": "must be 1 to 2000 characters"}]);
    assert_eq!(error.details, Some(expected));
    let later: ErrorBody = serde_json::from_str(r#"{"code": "invented_later", "message": "new"}"#)?;
    assert_eq!(handle(409, &later), "give up");
    assert_eq!(handle(503, &later), "try again");

    step("done");
    Ok(())
}
