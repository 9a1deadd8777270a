//! A step of a workflow: counts the words of an artifact, and leaves the long ones.

use dhow_sdk::{StepInput, StepOutput};
use std::error::Error;
use std::fs;

fn words(input: StepInput) -> Result<StepOutput, Box<dyn Error>> {
    let least: usize = input.parameter("least").unwrap_or("4").parse()?;
    let text = fs::read_to_string(input.artifact("text").ok_or("there is no artifact text")?)?;
    let long: Vec<&str> = text.split_whitespace().filter(|word| word.chars().count() >= least).collect();
    fs::write("/long.txt", long.join("\n"))?;
    println!("{} of {} words are long", long.len(), text.split_whitespace().count());
    Ok(StepOutput::new()
        .result(long.len().to_string())
        .parameter("first", long.first().unwrap_or(&""))
        .artifact("long", "/long.txt"))
}

dhow_sdk::step!(words);

fn main() {}
