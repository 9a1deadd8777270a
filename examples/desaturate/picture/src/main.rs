//! Takes the colours out of a picture: `desaturate IN OUT`; `draw WIDTH HEIGHT OUT` makes a picture to try that with.
//! Prints the microseconds that it took.

use jpeg_encoder::{ColorType, Encoder};
use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;

const QUALITY: u8 = 85;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let begun = Instant::now();
    let done = match args[..] {
        ["desaturate", from, to] => desaturate(from, to),
        ["draw", width, height, to] => draw(width, height, to),
        ["nothing"] => Ok(()),
        _ => Err("expected: desaturate IN OUT, or draw WIDTH HEIGHT OUT".into()),
    };
    match done {
        Ok(()) => {
            println!("{}", begun.elapsed().as_micros());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn desaturate(from: &str, to: &str) -> Result<(), Box<dyn Error>> {
    let mut decoder = JpegDecoder::new(ZCursor::new(std::fs::read(from)?));
    let mut pixels = decoder.decode()?;
    let (width, height) = decoder.dimensions().ok_or("the picture has no size")?;
    if pixels.len() != width * height * 3 {
        return Err("expected a picture with colours".into());
    }
    for pixel in pixels.chunks_exact_mut(3) {
        // How bright each colour looks, in 1/256.
        let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
        let gray = ((red * 77 + green * 150 + blue * 29) >> 8) as u8;
        pixel.fill(gray);
    }
    save(to, &pixels, width, height)
}

/// Colours that flow into each other, and edges.
fn draw(width: &str, height: &str, to: &str) -> Result<(), Box<dyn Error>> {
    let (width, height): (usize, usize) = (width.parse()?, height.parse()?);
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let square = ((x / 24) ^ (y / 24)) as u8;
            pixels.extend([(x * 255 / width) as u8, (y * 255 / height) as u8, square.wrapping_mul(37)]);
        }
    }
    save(to, &pixels, width, height)
}

fn save(to: &str, pixels: &[u8], width: usize, height: usize) -> Result<(), Box<dyn Error>> {
    let mut file = Vec::new();
    Encoder::new(&mut file, QUALITY).encode(pixels, width.try_into()?, height.try_into()?, ColorType::Rgb)?;
    Ok(std::fs::write(to, file)?)
}
