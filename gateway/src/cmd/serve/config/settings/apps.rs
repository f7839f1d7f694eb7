//! The apps that clients may call.

use super::Reader;

impl Reader<'_> {
    pub(super) fn apps(&mut self) -> Vec<String> {
        let mut apps = Vec::new();
        for (name, origin) in self.list("apps.allow") {
            let fits = |segment: &str| {
                segment == "*" || (!segment.is_empty() && !segment.contains(['*', '?', '#', '%']))
            };
            if name.split('/').all(fits) {
                apps.push(name);
            } else {
                let why = "write names of apps, such as \"acme/painter\" or \"acme/*\"";
                self.wrong(origin, "apps.allow", why);
            }
        }
        apps
    }
}
