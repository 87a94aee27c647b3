use crate::cli::Demo;
pub async fn run(_: &Demo) -> anyhow::Result<u8> { todo!() }
