//! HTTP/JSON beside Go etcd 3.7: every path, errors, streams and websockets. Needs `OXETCD_REFERENCE`.

use oxetcd_tests::conversations;
use oxetcd_tests::script::gateway;

conversations! {
    flags: &["--bcrypt-cost=4"];
    every_path_of_the_gateway => gateway::talk,
    users_and_tokens_over_http => gateway::authentication,
}
