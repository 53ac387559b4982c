//! Who may see the map where others than this machine's users reach it.
//!
//! Whoever has a bearer token of the cluster, may `get gpunodes.stowage.dev`, and so could see the same with kubectl. The
//! names and namespaces of pods are for those who may `list pods` everywhere. Both are asked of the API server, and an
//! answer is remembered for a minute: so long may a right that was taken away still count.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use ops::chain;
use stowage_shared::contract::{API_GROUP, MAP_ACCESS_TTL};
use stowage_shared::gpu_node;
use tokio::sync::Semaphore;

/// Answers that are remembered; beyond that the oldest are asked again.
const REMEMBERED_MAX: usize = 512;
/// The longest token that is asked about, in bytes; those of ServiceAccounts have about one thousand.
const TOKEN_MAX_BYTES: usize = 16 * 1024;
/// Tokens that are asked about at once: strangers do not make the API server work.
const ASKED_MAX: usize = 4;
/// How long one token may take, waiting for others included.
const ASK_MAX: Duration = Duration::from_secs(5);

/// What somebody may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// Everything.
    Names,
    /// Everything but who pods are.
    NoNames,
}

/// Why somebody sees nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    /// No token.
    #[error("say who you are: Authorization: Bearer and a token of the cluster (kubectl create token NAME)")]
    NoToken,
    /// One that the API server does not know.
    #[error("the API server does not accept this token: is it of another cluster, or too old?")]
    BadToken,
    /// No right.
    #[error("{0} may not get gpunodes.{API_GROUP}, so not see the map")]
    NotAllowed(String),
    /// It cannot be asked.
    #[error("the API server cannot be asked who you are: {0}")]
    Unavailable(String),
}

/// Until when an answer counts, and the answer.
type Remembered = (Instant, Result<Audience, Denied>);

/// Asks, and remembers.
pub(super) struct Access {
    client: Client,
    remembered: Mutex<HashMap<String, Remembered>>,
    asking: Semaphore,
}

impl Access {
    pub(super) fn new(client: Client) -> Self {
        Self { client, remembered: Mutex::default(), asking: Semaphore::new(ASKED_MAX) }
    }

    /// What whoever has this token may see.
    ///
    /// # Errors
    /// [`Denied`].
    pub(super) async fn of(&self, token: Option<&str>) -> Result<Audience, Denied> {
        let token = token.ok_or(Denied::NoToken)?;
        if token.len() > TOKEN_MAX_BYTES {
            return Err(Denied::BadToken);
        }
        if let Some(known) = self.recall(token, Instant::now()) {
            return known;
        }
        let asked = tokio::time::timeout(ASK_MAX, async {
            let _slot = self.asking.acquire().await;
            // Another request of the same page may have asked meanwhile.
            match self.recall(token, Instant::now()) {
                Some(known) => known,
                None => self.ask(token).await,
            }
        });
        let late = || Err(Denied::Unavailable(format!("no answer within {} s", ASK_MAX.as_secs())));
        let answer = asked.await.unwrap_or_else(|_| late());
        // What could not be found out is no answer.
        if !matches!(answer, Err(Denied::Unavailable(_))) {
            self.remember(token, answer.clone(), Instant::now());
        }
        answer
    }

    async fn ask(&self, token: &str) -> Result<Audience, Denied> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let review = reviews.create(&PostParams::default(), &review).await;
        let status = review.map_err(unavailable)?.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true)).ok_or(Denied::BadToken)?;
        if !self.may(&user, "get", API_GROUP, gpu_node::PLURAL).await? {
            return Err(Denied::NotAllowed(user.username.unwrap_or_default()));
        }
        let names = self.may(&user, "list", "", "pods").await?;
        Ok(if names { Audience::Names } else { Audience::NoNames })
    }

    /// Whether a user may do something everywhere.
    async fn may(&self, user: &UserInfo, verb: &str, group: &str, resource: &str) -> Result<bool, Denied> {
        let attributes = ResourceAttributes {
            verb: Some(verb.into()),
            group: Some(group.into()),
            resource: Some(resource.into()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: user.username.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.clone(),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = reviews.create(&PostParams::default(), &review).await.map_err(unavailable)?;
        Ok(review.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
    }

    fn recall(&self, token: &str, now: Instant) -> Option<Result<Audience, Denied>> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, answer) = remembered.get(token)?;
        (*until > now).then(|| answer.clone())
    }

    fn remember(&self, token: &str, answer: Result<Audience, Denied>, now: Instant) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, (until, _)| *until > now);
        }
        if remembered.len() >= REMEMBERED_MAX {
            let oldest =
                remembered.iter().min_by_key(|(_, (until, _))| *until).map(|(token, _)| token.clone());
            oldest.iter().for_each(|token| drop(remembered.remove(token)));
        }
        remembered.insert(token.to_owned(), (now + MAP_ACCESS_TTL, answer));
    }
}

/// Why the API server gave no answer. Where a right of our own is missing, it is said how to get it.
fn unavailable(error: kube::Error) -> Denied {
    Denied::Unavailable(match &error {
        kube::Error::Api(status) if status.code == 403 => {
            format!("apply deploy/options/map.yaml ({})", status.message)
        }
        kube::Error::Api(status) => status.message.clone(),
        other => chain(other),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http_body_util::{BodyExt, Full};
    use hyper::{Request, Response};
    use serde_json::{Value, json};

    use super::*;

    /// An API server that knows the tokens `admin`, `viewer` and `nobody`, counts requests, and is down on `down`.
    fn api(asked: Arc<AtomicUsize>) -> Client {
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let asked = asked.clone();
            async move {
                asked.fetch_add(1, Ordering::Relaxed);
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await?.to_bytes();
                let review: Value = serde_json::from_slice(&body).unwrap();
                let spec = &review["spec"];
                let status = if path.ends_with("/tokenreviews") {
                    match spec["token"].as_str().unwrap() {
                        "down" => return Err("the API server is down".into()),
                        name @ ("admin" | "viewer" | "nobody") => json!({ "authenticated": true,
                            "user": { "username": name, "groups": ["g"], "extra": { "k": ["v"] } } }),
                        _ => json!({ "authenticated": false }),
                    }
                } else {
                    assert_eq!((&spec["groups"], &spec["extra"]), (&json!(["g"]), &json!({ "k": ["v"] })));
                    let attributes = &spec["resourceAttributes"];
                    assert!(attributes.get("namespace").is_none(), "everywhere is asked for");
                    let right = format!(
                        "{} {}",
                        attributes["verb"].as_str().unwrap(),
                        attributes["resource"].as_str().unwrap()
                    );
                    let allowed = match spec["user"].as_str().unwrap() {
                        "admin" => true,
                        "viewer" => right == "get gpunodes",
                        _ => right == "list pods",
                    };
                    json!({ "allowed": allowed })
                };
                let answer = json!({ "apiVersion": review["apiVersion"], "kind": review["kind"], "metadata": {}, "spec": spec, "status": status });
                Ok::<_, tower::BoxError>(
                    Response::builder()
                        .status(201)
                        .body(Full::new(bytes::Bytes::from(answer.to_string())))
                        .unwrap(),
                )
            }
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn rights_decide_what_is_seen() {
        let access = Access::new(api(Arc::default()));
        assert_eq!(access.of(Some("admin")).await, Ok(Audience::Names));
        assert_eq!(access.of(Some("viewer")).await, Ok(Audience::NoNames));
        assert_eq!(access.of(Some("nobody")).await, Err(Denied::NotAllowed("nobody".into())));
        assert_eq!(access.of(Some("forged")).await, Err(Denied::BadToken));
        assert_eq!(access.of(None).await, Err(Denied::NoToken));
    }

    #[tokio::test]
    async fn an_answer_is_remembered_and_an_outage_is_none() {
        let asked = Arc::new(AtomicUsize::new(0));
        let access = Access::new(api(asked.clone()));
        for _ in 0..3 {
            access.of(Some("admin")).await.unwrap();
            access.of(Some("forged")).await.unwrap_err();
        }
        assert_eq!(asked.load(Ordering::Relaxed), 3 + 1);
        for _ in 0..2 {
            assert!(matches!(access.of(Some("down")).await, Err(Denied::Unavailable(_))));
        }
        assert!(asked.load(Ordering::Relaxed) >= 6);
        let later = Instant::now() + MAP_ACCESS_TTL;
        assert_eq!(
            access.recall("admin", later),
            None,
            "a right that was taken away counts for a minute at most"
        );
    }

    #[tokio::test]
    async fn strangers_tokens_take_a_bounded_memory() {
        let asked = Arc::new(AtomicUsize::new(0));
        let access = Access::new(api(asked.clone()));
        let now = Instant::now();
        for n in 0..2 * REMEMBERED_MAX {
            let at = now + Duration::from_millis(u64::try_from(n).unwrap());
            access.remember(&n.to_string(), Err(Denied::BadToken), at);
        }
        assert_eq!(access.remembered.lock().unwrap().len(), REMEMBERED_MAX);
        assert!(access.recall("0", now).is_none() && access.recall("1023", now).is_some());
        let long = "x".repeat(TOKEN_MAX_BYTES + 1);
        assert_eq!(access.of(Some(&long)).await, Err(Denied::BadToken));
        assert_eq!(asked.load(Ordering::Relaxed), 0);
    }
}
