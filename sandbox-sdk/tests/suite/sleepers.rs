//! Counting processes in a guest that has no tool for it.

use sandbox_sdk::Sandbox;

/// Waits within the guest for so many processes that are called `sleep`.
pub(crate) async fn until_sleepers_are(count: u32, sandbox: &Sandbox) {
    let line = format!(
        "for turn in $(seq 200); do
            found=0
            for comm in /proc/[0-9]*/comm; do
                name=; read name < $comm && [ \"$name\" = sleep ] && found=$((found + 1))
            done 2>/dev/null
            [ $found = {count} ] && exit
            usleep 20000
        done
        echo $found >&2; exit 1"
    );
    let looked = sandbox.exec(line).await.unwrap();
    assert!(looked.status.success(), "not {count}: {looked:?}");
}
