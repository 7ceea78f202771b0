//! Health and access over plain HTTP beside Go etcd 3.7. Needs `OXETCD_REFERENCE`.

mod checks {
    use oxetcd_tests::conversations;
    use oxetcd_tests::script::health;

    conversations! {
        flags: &[];
        health_live_and_ready => health::talk,
    }
}

mod access {
    use oxetcd_tests::conversations;
    use oxetcd_tests::script::health;

    conversations! {
        flags: &["--host-whitelist=good.example", "--cors=http://good.example:8000"];
        hosts_and_origins => health::access,
    }

    conversations! {
        flags: &["--enable-grpc-gateway=false"];
        without_the_gateway => health::talk_without_gateway,
    }
}
