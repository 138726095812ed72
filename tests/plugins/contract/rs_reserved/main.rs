//! Events of reserved types are refused one by one; unknown fields of a response are nobody's business.
use std::io::Read;

fn main() {
    let mut request = String::new();
    std::io::stdin().read_to_string(&mut request).expect("a request");
    if request.contains("\"command\":\"shapes\"") {
        print!("{}", r#"{"status":"ok","result":"x","events":[{"payload":{"type":"is missing"}}]}"#);
        return;
    }
    print!(
        "{}",
        r#"{"protocol":2,"status":"ok","result":"done","events":[
            {"type":"job.failed","payload":{}},
            {"type":"ductile.step.succeeded"},
            {"type":"rs_reserved.fine","payload":{"undeclared":[1]},"unknown":true}],
           "novel":{"field":1},"deadline_at":"tomorrow"}"#
    );
}
