//! The management listener behind a proxy that publishes it under a path.

use super::*;

#[tokio::test]
async fn the_listener_is_published_under_a_path_that_the_proxy_keeps_or_removes() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(&directory, &["admin.base_path=/it/muster", "admin.metrics=socket"]);
    let server = Server::start(&config).await.unwrap();
    for base in ["", "/it/muster"] {
        for (path, status) in [("/healthz", 200), ("/api/status", 200), ("/", 303), ("/metrics", 403), ("/none", 404)] {
            let told = admin(&server, &format!("{base}{path}")).await;
            assert!(told.starts_with(&format!("HTTP/1.1 {status}")), "{base}{path}: {told}");
            assert!(!told.contains("muster_"), "no path leads around the restriction of metrics: {told}");
        }
        let told = admin(&server, &format!("{base}/")).await;
        assert!(told.contains("location: /it/muster/login?return_to=%2F\r\n"), "{told}");
    }
    for other in ["/it", "/it/musterfon/healthz", "/it/muster/it/muster/healthz"] {
        assert!(!admin(&server, other).await.starts_with("HTTP/1.1 200"), "{other}");
    }
    // A header of a proxy changes nothing: any client can send it.
    let stream = TcpStream::connect(server.addresses.admin.unwrap()).await.unwrap();
    let told = ask_as(stream, "localhost\r\nx-forwarded-prefix: //evil.example", "/it/muster/").await;
    assert!(told.contains("location: /it/muster/login") && !told.contains("evil"), "{told}");
    let greeting = server.first_start.greeting(&config, &server.addresses);
    let address = server.addresses.admin.unwrap();
    for line in
        [format!("Web pages: http://{address}/it/muster/\n"), format!("http://{address}/it/muster/setup?token=")]
    {
        assert!(greeting.contains(&line), "{line} is missing in\n{greeting}");
    }
    server.stop().await;
}
