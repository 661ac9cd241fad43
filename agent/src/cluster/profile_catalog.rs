//! The object `ProfileCatalog`: what bundles declare, for admission policies to have as their parameter.
//!
//! It is made without a `spec`, which is the administrator's, and its `status` is written by server-side apply
//! through the subresource of that name, which can change nothing else.
//!
//! Invariant: nothing but `status` is written of an object that exists.

use std::sync::Arc;

use kube::api::{Patch, PatchParams, PostParams};
use profiles::catalog::object::{NAME, Status};
use profiles::writing;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::own_object::OwnObject;
use super::{CATALOG_MANAGER, Connection, api_version, code};

const PERMISSION: &str =
    "get and create ProfileCatalogs and patch their status, and see what policy forbids it";

pub(super) const KIND: &str = "ProfileCatalog";
pub(super) const PLURAL: &str = "profilecatalogs";

pub(crate) type Request = writing::Request<Arc<Status>>;
pub(crate) type Answer = writing::Answer<Arc<Status>>;

/// Reads and writes the object.
pub(crate) struct Keeper(OwnObject);

impl Keeper {
    pub(crate) fn new(client: Connection) -> Self {
        Self(OwnObject::new(client, (KIND, PLURAL), NAME, PERMISSION))
    }

    /// Asks for it, or for it to be written, and says how that ended.
    pub(crate) async fn ask(&self, request: Request) -> Answer {
        let answer = async {
            match &request {
                Request::Read => self.read().await,
                Request::Write(status) => self.write(status).await,
            }
        };
        self.0.ask(answer).await
    }

    /// What is there, if it has a status as [`Self::write`] makes it.
    async fn read(&self) -> kube::Result<Answer> {
        let Some(mut object) = self.0.get().await? else { return Ok(Answer::Found(None)) };
        let status = object.data.get_mut("status").map(Value::take);
        let status: Option<Status> = status.and_then(|status| serde_json::from_value(status).ok());
        Ok(Answer::Found(status.map(Arc::new)))
    }

    async fn write(&self, status: &Status) -> kube::Result<Answer> {
        match self.write_status(status).await {
            Err(error) if code(&error) == 404 => {
                self.make().await?;
                self.write_status(status).await?;
            }
            outcome => outcome?,
        }
        let totals = status.totals;
        if totals.omitted > 0 {
            let advice = "references to profiles of the newest bundles count as unknown; remove profiles that \
                          nobody needs from bundles";
            warn!(omitted = totals.omitted, advice, "ProfileCatalog is full");
        }
        info!(seccomp = totals.seccomp, apparmor = totals.app_armor, "ProfileCatalog written");
        Ok(Answer::Written)
    }

    async fn write_status(&self, status: &Status) -> kube::Result<()> {
        let params = PatchParams::apply(CATALOG_MANAGER).force();
        self.0.api.patch_status(NAME, &params, &Patch::Apply(object(Some(status)))).await.map(drop)
    }

    /// Makes the object, unless somebody was quicker.
    async fn make(&self) -> kube::Result<()> {
        let object = serde_json::from_value(object(None)).map_err(kube::Error::SerdeError)?;
        let params = PostParams { field_manager: Some(CATALOG_MANAGER.to_owned()), ..PostParams::default() };
        match self.0.api.create(&params, &object).await {
            Err(error) if code(&error) == 409 => Ok(()),
            outcome => outcome.map(drop),
        }
    }
}

/// All of the object that is the catalog's.
fn object(status: Option<&Status>) -> Value {
    let mut object = json!({"apiVersion": api_version(), "kind": KIND, "metadata": {"name": NAME}});
    if let Some(status) = status {
        object["status"] = json!(status);
    }
    object
}

#[cfg(test)]
mod tests {
    use super::super::script::{self, Exchange};
    use super::*;

    fn status() -> Arc<Status> {
        let entry = ("web/a.json".to_owned(), "seccomp.pavise.dev/web_a.json".to_owned());
        Arc::new(Status { seccomp: [entry].into(), ..Status::default() })
    }

    fn there(status: Option<&Status>) -> Value {
        let mut object = object(status);
        object["metadata"]["resourceVersion"] = json!("7");
        object["spec"] = json!({"defaults": {"warn": "known"}});
        object
    }

    fn refused(code: u16) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "code": code})
    }

    const WRITE: &str = "/profilecatalogs/pavise/status?&force=true&fieldManager=pavise-catalog";
    const MAKE: &str = "/apis/pavise.dev/v1alpha1/profilecatalogs?&fieldManager=pavise-catalog";

    #[test]
    fn the_policy_takes_what_the_catalog_makes() {
        let policy = include_str!("../../../manifests/base/own-catalog.yaml");
        for expected in [format!("== '{CATALOG_MANAGER}'"), format!("orValue('') == '{NAME}'")] {
            assert!(policy.contains(&expected), "the policy does not have {expected}");
        }
    }

    /// Claims how `request` ends when these are asked, and the API server answers so.
    async fn check(request: Request, script: Vec<(&'static str, u16, Value)>, expected: Answer) {
        let exchange = |(asked, status, answer)| Exchange { asked, status, answer: vec![answer] };
        let keeper = Keeper::new(script::client(script.into_iter().map(exchange).collect()));
        assert_eq!(keeper.ask(request).await, expected);
    }

    #[tokio::test]
    async fn the_status_is_found_whatever_else_the_object_has() {
        const READ: &str = "/apis/pavise.dev/v1alpha1/profilecatalogs/pavise";
        let found = Answer::Found(Some(status()));
        check(Request::Read, vec![(READ, 200, there(Some(&status())))], found).await;
        check(Request::Read, vec![(READ, 200, there(None))], Answer::Found(None)).await;
        check(Request::Read, vec![(READ, 404, refused(404))], Answer::Found(None)).await;
        check(Request::Read, vec![(READ, 403, refused(403))], Answer::Failed).await;
    }

    #[tokio::test]
    async fn the_object_is_made_where_there_is_none() {
        let (write, there) = (|| Request::Write(status()), || there(Some(&status())));
        let missing = || (WRITE, 404, refused(404));
        check(write(), vec![(WRITE, 200, there())], Answer::Written).await;
        check(write(), vec![missing(), (MAKE, 201, there()), (WRITE, 200, there())], Answer::Written).await;
        check(write(), vec![missing(), (MAKE, 409, refused(409)), (WRITE, 200, there())], Answer::Written)
            .await;
        check(write(), vec![missing(), (MAKE, 404, refused(404))], Answer::Failed).await;
        check(write(), vec![(WRITE, 422, refused(422))], Answer::Failed).await;
    }

    #[test]
    fn nothing_but_the_name_is_made() {
        let object = object(None);
        assert_eq!((&object["metadata"], object.get("spec")), (&json!({"name": "pavise"}), None));
    }
}
