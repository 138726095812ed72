//! `ductile pipeline ...`: what is wired to what, what it would do, and starting it.

mod list;
mod preview;
mod run;
mod show;
mod steps;

use serde_json::{Map, Value, json};

use crate::args::{Diagram, Global, Input, Pipeline, PipelineVisualize};
use crate::compiled::Compiled;
use crate::error::Error;
use crate::plugin::{read_payload, with_fields};
use crate::report::Report;

/// Runs one action.
///
/// # Errors
/// What the action says.
pub(crate) async fn run(action: Pipeline, global: &Global, report: &mut Report) -> Result<(), Error> {
    match action {
        Pipeline::List => list::run(global, report).await,
        Pipeline::Show(args) => show::run(&args, global, report).await,
        Pipeline::Visualize(args) => visualize(&args, global, report),
        Pipeline::DryRun(args) => preview::show(&args.name, input(&args.input)?, global, report),
        Pipeline::Run(args) => run::run(&args, global, report).await,
    }
}

/// The payload of the arguments; `None` when they name none.
fn input(input: &Input) -> Result<Option<Map<String, Value>>, Error> {
    let payload = input.payload.as_deref().map(read_payload).transpose()?;
    with_fields(payload, &input.fields, &Value::Null)
}

/// CLI-34: the diagram of what the configuration on disk compiles to.
fn visualize(args: &PipelineVisualize, global: &Global, report: &mut Report) -> Result<(), Error> {
    let compiled = Compiled::load(global, report)?;
    let pipeline = compiled.pipeline(&args.name)?;
    let diagram = match args.format {
        Diagram::Mermaid => pipeline.mermaid(),
        Diagram::Dot => pipeline.dot(),
    };
    let diagram = compiled.shown(diagram);
    if report.is_json() {
        let format = if args.format == Diagram::Dot { "dot" } else { "mermaid" };
        report.document(&json!({"pipeline": args.name, "format": format, "diagram": diagram}));
    } else {
        report.line(diagram.trim_end());
    }
    Ok(())
}
