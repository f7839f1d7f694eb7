//! Requests as clients write them: JSON as Go reads it, and forms (jobs spec 2.1, 13).

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::answer::data_url;
use super::fields::{self, Field};
use super::request::{BatchRequest, FilePart};
use super::value::{MAX_MEMBERS, typed};
use super::{BadRequest, MAX_NESTING};
use crate::pipeline::Pipeline;
use crate::wire::json::{self, Members};
use crate::wire::multipart;

/// The member that says who may do the job.
const PROVIDER: &str = "provider";

impl BatchRequest {
    /// Reads a JSON body. Unknown members and what follows the object are ignored, `null` is an absent member.
    ///
    /// # Errors
    /// If the pipeline takes a form, the body is not an object, names a member twice, nests more than [`MAX_NESTING`]
    /// deep, or a field is of another kind. Absent fields are for [`BatchRequest::check`] to find.
    pub fn read_json(pipeline: Pipeline, body: &Bytes) -> Result<Self, BadRequest> {
        if fields::file_of(pipeline).is_some() {
            let text = format!("{pipeline} takes a form: content-type multipart/form-data");
            return Err(BadRequest::new(text));
        }
        Self::read_object(pipeline, body)
    }

    /// Reads a request to any pipeline from JSON, as applications write it that make no forms: the member `image` or
    /// `audio` is the file, in base64 or as a `data:` URL.
    ///
    /// # Errors
    /// As [`BatchRequest::read_json`], and if the file is not base64.
    pub fn read_object(pipeline: Pipeline, body: &Bytes) -> Result<Self, BadRequest> {
        let text = json::mended(body);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut request = Self::new(pipeline);
        let mut seen = BTreeSet::new();
        for (name, value) in object(text)? {
            if !seen.insert(name.to_ascii_lowercase()) {
                return Err(BadRequest::of(&name, format!("{name} is there twice")));
            }
            if name == PROVIDER {
                request.provider = Some(value.get().into());
                continue;
            }
            if value.get() == "null" {
                continue;
            }
            if let Some(field) = known(pipeline, &name) {
                request.set(field.name, typed(field, value.get())?)?;
            } else if fields::file_of(pipeline) == Some(&name[..]) {
                let content = json::unquoted(value.get()).and_then(|text| match data_url(&text) {
                    Some(read) => read.ok(),
                    None => json::BASE64.decode(text).ok().map(Bytes::from),
                });
                let content = content.ok_or_else(|| {
                    let text = format!("{name} must be a file in base64, or a data: URL");
                    BadRequest::of(&name, text)
                })?;
                request.set_file(FilePart::new(&name[..], content))?;
            }
        }
        Ok(request)
    }

    /// Reads a form. Of parts with the same name the first counts, unknown parts are ignored, and their order is free.
    ///
    /// # Errors
    /// If the body is not such a form, the file comes as text, or a field is of another kind. Absent fields are for
    /// [`BatchRequest::check`] to find.
    pub fn read_form(
        pipeline: Pipeline,
        content_type: &str,
        body: &Bytes,
    ) -> Result<Self, BadRequest> {
        let Some(file) = fields::file_of(pipeline) else {
            return Err(BadRequest::new(format!(
                "{pipeline} takes JSON and no form"
            )));
        };
        let parts =
            multipart::read(content_type, body).map_err(|bad| BadRequest::new(format!("{bad}")))?;
        let mut request = Self::new(pipeline);
        let mut seen = BTreeSet::new();
        for part in parts {
            if part.name == file {
                let Some(name) = part.file_name else {
                    let text = format!("{file} must be a file: give the part a filename");
                    return Err(BadRequest::of(file, text));
                };
                if request.file().is_none() {
                    let name = name.rsplit(['/', '\\']).next().unwrap_or_default().into();
                    let content = part.content;
                    request.set_file(FilePart { name, content })?;
                }
            } else if part.name == PROVIDER {
                let text = json::mended(&part.content);
                request.provider.get_or_insert_with(|| text.into_owned());
            } else if part.file_name.is_none()
                && let Some(field) = fields::of(pipeline)
                    .iter()
                    .find(|field| field.name == part.name)
                && seen.insert(field.name)
            {
                request.set_text(field.name, &json::mended(&part.content))?;
            }
        }
        Ok(request)
    }
}

/// The field that a member of that name sets: Go reads names in any case.
fn known(pipeline: Pipeline, name: &str) -> Option<&'static Field> {
    fields::of(pipeline)
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case(name))
}

/// The members of the first value of a text, which is to be an object.
fn object(text: &str) -> Result<Vec<(String, alloc::boxed::Box<RawValue>)>, BadRequest> {
    if json::nests_deeper(text, MAX_NESTING) {
        let text = format!("the JSON has more than {MAX_NESTING} brackets open at once");
        return Err(BadRequest::new(text));
    }
    let mut values =
        serde_json::Deserializer::from_str(text).into_iter::<Option<Members<MAX_MEMBERS>>>();
    match values.next() {
        Some(Ok(Some(members))) => Ok(members.0),
        Some(Ok(None)) => Err(BadRequest::new("the body is null; send a JSON object")),
        Some(Err(err)) => Err(BadRequest::new(format!(
            "the body is not a JSON object: {err}"
        ))),
        None => Err(BadRequest::new("the body is empty; send a JSON object")),
    }
}
