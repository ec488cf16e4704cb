//! A web application in Python, built on a Debian system: running in what starts from the template,
//! or at rest. Debian is made once for both, since that takes a minute of downloading and unpacking.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod vm_support;

use std::fs;

use sandbox_sdk::{ImportSource, TemplateKind};
use vm_support::{Platform, text, with_platform};

/// Answers with a number that it drew when it began.
const APP: &str = r#"
import http.server, sys, uuid

token = uuid.uuid4().hex

class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/health" and self.path != "/":
            return self.send_error(404)
        body = f"{token} {sys.prefix}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("127.0.0.1", 8000), App).serve_forever()
"#;

const HEALTHY: &str = "python3 -c \"import urllib.request as r; \
                       r.urlopen('http://127.0.0.1:8000/health', timeout=20)\"";

/// Asks the application, once, with what bash itself has.
const ASK: &str = "bash -c 'exec 3<>/dev/tcp/127.0.0.1/8000 && \
                   printf \"GET / HTTP/1.0\\r\\n\\r\\n\" >&3 && tail -n 1 <&3'";

async fn make_debian(platform: &Platform) {
    let source = ImportSource::Debian {
        suite: "bookworm".to_owned(),
        packages: vec!["python3-venv".to_owned()],
    };
    let debian = platform.client.templates().import("debian", source);
    debian.disk_size_mb(1024).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn r30_a_python_web_app_is_built_on_debian_to_run_at_once_or_to_rest() {
    with_platform(async |platform| {
        make_debian(platform).await;
        let client = &platform.client;
        let context = tempfile::tempdir().unwrap();
        fs::write(context.path().join("app.py"), APP).unwrap();
        let described = |name: &str| {
            client
                .build_template(name)
                .base_template("debian")
                .context_dir(context.path())
                .recipe([
                    "RUN python3 -m venv --without-pip /srv/venv",
                    "WORKDIR /srv",
                    "COPY app.py ./",
                    "START exec /srv/venv/bin/python app.py",
                ])
        };

        let build = described("web")
            .healthcheck(HEALTHY)
            .submit()
            .await
            .unwrap();
        let running = build.wait().await.unwrap();
        assert_eq!(running.kind(), TemplateKind::Snapshot);
        let mut tokens = Vec::new();
        for _ in 0..2 {
            let sandbox = client.create().template("web").await.unwrap();
            let answer = text(sandbox.exec(ASK).await.unwrap());
            let (token, prefix) = answer.trim().split_once(' ').unwrap();
            assert_eq!(prefix, "/srv/venv", "it runs in the virtual environment");
            tokens.push(token.to_owned());
            sandbox.destroy().await.unwrap();
        }
        assert_eq!(tokens[0], tokens[1], "the process is the build's own");

        let build = described("web-at-rest").submit().await.unwrap();
        let at_rest = build.wait().await.unwrap();
        assert_eq!(at_rest.kind(), TemplateKind::Image);
        assert!(
            at_rest.info().size_bytes() < running.info().size_bytes(),
            "no memory in it"
        );
        let sandbox = client.create().template("web-at-rest").await.unwrap();
        let nobody = sandbox.exec(ASK).await.unwrap();
        assert!(!nobody.status.success(), "{nobody:?}");
        let made = "cat /srv/app.py && /srv/venv/bin/python -c 'import sys; print(sys.prefix)'";
        let made = text(sandbox.exec(made).await.unwrap());
        assert_eq!(made, format!("{APP}/srv/venv\n"));
        sandbox.destroy().await.unwrap();
    })
    .await;
}
