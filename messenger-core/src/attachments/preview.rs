//! Small pictures of pictures, made by the `image` crate within bounds: what comes from outside may be
//! made to take all the memory that there is.

use std::io::{BufRead, Read, Seek, SeekFrom};

use image::codecs::jpeg::JpegEncoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Rgba};

use crate::limits::Limits;

/// The longest side of a preview, in pixels.
const SIDE_MAX: u32 = 640;
/// The longest side of a picture that is looked at.
const SOURCE_SIDE_MAX: u32 = 20_000;
/// How well a preview is kept, of 100.
const QUALITY: u8 = 80;
/// Bytes by which a picture is recognised.
pub(super) const HEAD_BYTES: usize = 16;

/// What is found out about a picture.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Picture {
    /// Its width and height, as it is to be shown.
    pub(super) pixels: (u32, u32),
    /// A small one of it, as JPEG; `None` if it would take too much or can not be read.
    pub(super) preview: Option<Vec<u8>>,
}

/// Whether a file that begins so is a picture of which a preview can be made, whatever it is called.
pub(super) fn is_picture(head: &[u8]) -> bool {
    format(head).is_some()
}

fn format(head: &[u8]) -> Option<ImageFormat> {
    let format = image::guess_format(head).ok()?;
    let known = [
        ImageFormat::Jpeg,
        ImageFormat::Png,
        ImageFormat::Gif,
        ImageFormat::WebP,
    ];
    known.contains(&format).then_some(format)
}

/// Looks at a picture of so many bytes; `None` if it is none. Takes a while: not for a task that others
/// wait for.
pub(super) fn look(mut source: impl BufRead + Seek, limits: &Limits) -> Option<Picture> {
    let length = source.seek(SeekFrom::End(0)).ok()?;
    source.rewind().ok()?;
    let mut head = Vec::with_capacity(HEAD_BYTES);
    let at_most = (&mut source).take(HEAD_BYTES as u64).read_to_end(&mut head);
    at_most.ok()?;
    let format = format(&head)?;
    let is_progressive = format == ImageFormat::Jpeg && is_progressive(&mut source);
    source.rewind().ok()?;
    let mut bounds = image::Limits::default();
    bounds.max_image_width = Some(SOURCE_SIDE_MAX);
    bounds.max_image_height = Some(SOURCE_SIDE_MAX);
    bounds.max_alloc = Some(limits.preview_memory_bytes_max);
    let mut reader = ImageReader::with_format(source, format);
    reader.limits(bounds);
    let mut decoder = reader.into_decoder().ok()?;
    let (width, height) = decoder.dimensions();
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let turned = matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    );
    let pixels = if turned {
        (height, width)
    } else {
        (width, height)
    };

    // What its decoder holds beside what it gives and the file: the screen of an animation, planes of
    // colours, and of a progressive JPEG all its coefficients (measured).
    let area = u64::from(width) * u64::from(height);
    let beside = match format {
        ImageFormat::Jpeg if is_progressive => area.saturating_mul(15),
        ImageFormat::Gif | ImageFormat::WebP => area.saturating_mul(4),
        _ => 0,
    };
    let takes = decoder
        .total_bytes()
        .saturating_add(beside)
        .saturating_add(length);
    if takes > limits.preview_memory_bytes_max {
        return Some(Picture {
            pixels,
            preview: None,
        });
    }
    let preview = DynamicImage::from_decoder(decoder).ok();
    let preview = preview.and_then(|picture| shrink(picture, orientation));
    Some(Picture { pixels, preview })
}

/// Makes a picture small and turns it the right way up. What shines through is put on white, since a
/// JPEG has none of it.
fn shrink(picture: DynamicImage, orientation: Orientation) -> Option<Vec<u8>> {
    let mut small = if picture.width().max(picture.height()) > SIDE_MAX {
        picture.thumbnail(SIDE_MAX, SIDE_MAX)
    } else {
        picture
    };
    small.apply_orientation(orientation);
    let small = if small.color().has_alpha() {
        let mut small = small.into_rgba8();
        for pixel in small.pixels_mut() {
            let Rgba([red, green, blue, alpha]) = *pixel;
            let [red, green, blue] = [red, green, blue].map(|part| over_white(part, alpha));
            *pixel = Rgba([red, green, blue, u8::MAX]);
        }
        DynamicImage::ImageRgba8(small)
    } else {
        small
    };
    let mut jpeg = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut jpeg, QUALITY);
    small.into_rgb8().write_with_encoder(encoder).ok()?;
    Some(jpeg)
}

fn over_white(part: u8, alpha: u8) -> u8 {
    let (part, alpha) = (u32::from(part), u32::from(alpha));
    let mixed = (part * alpha + 255 * (255 - alpha)) / 255;
    u8::try_from(mixed).unwrap_or(u8::MAX)
}

/// Whether a JPEG is told in several scans, each of the whole picture.
fn is_progressive(source: &mut (impl Read + Seek)) -> bool {
    // Segments, each with its length after its marker, up to the one that begins the picture.
    let mut at = 2;
    let mut segment = [0; 4];
    while source.seek(SeekFrom::Start(at)).is_ok() && source.read_exact(&mut segment).is_ok() {
        let [0xff, marker, high, low] = segment else {
            break;
        };
        match marker {
            0xc2 | 0xc6 | 0xca | 0xce => return true,
            0xc0..=0xc3 | 0xda => return false,
            // Markers may be filled up with more of 0xff.
            0xff => at += 1,
            _ => at += 2 + u64::from(u16::from_be_bytes([high, low])),
        }
    }
    // Not understood: the dearer way is taken for it.
    true
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::codecs::png::PngEncoder;
    use image::{ImageEncoder, Rgb, RgbImage, Rgba, RgbaImage};

    use super::*;

    fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).expect("written");
        bytes.into_inner()
    }

    fn red(width: u32, height: u32) -> DynamicImage {
        RgbImage::from_pixel(width, height, Rgb([255, 0, 0])).into()
    }

    fn decoded(picture: &Picture) -> RgbImage {
        let preview = picture.preview.as_ref().expect("a preview");
        let read = image::load_from_memory_with_format(preview, ImageFormat::Jpeg);
        read.expect("a JPEG").into_rgb8()
    }

    #[test]
    fn a_picture_is_made_small_and_keeps_its_shape() {
        for format in [
            ImageFormat::Jpeg,
            ImageFormat::Png,
            ImageFormat::Gif,
            ImageFormat::WebP,
        ] {
            let bytes = encoded(&red(1_600, 400), format);

            assert!(is_picture(&bytes[..HEAD_BYTES]), "{format:?}");
            let picture = look(Cursor::new(bytes), &Limits::default()).expect("a picture");

            assert_eq!(picture.pixels, (1_600, 400));
            let preview = decoded(&picture);
            assert_eq!(preview.dimensions(), (640, 160), "{format:?}");
            let Rgb([red, green, blue]) = preview[(320, 80)];
            assert!(red > 240 && green < 20 && blue < 20, "{format:?}");
        }
    }

    #[test]
    fn a_small_picture_is_not_made_larger_and_what_shines_through_is_white() {
        let clear = RgbaImage::from_pixel(3, 2, Rgba([0, 0, 0, 0]));
        let bytes = encoded(&clear.into(), ImageFormat::Png);

        let picture = look(Cursor::new(bytes), &Limits::default()).expect("a picture");

        let preview = decoded(&picture);
        assert_eq!(preview.dimensions(), (3, 2));
        assert_eq!(preview[(1, 1)], Rgb([255, 255, 255]));
    }

    /// A JPEG that says that it must be turned, and where it was taken.
    fn turned() -> Vec<u8> {
        let bytes = encoded(&red(40, 20), ImageFormat::Jpeg);
        let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01".to_vec();
        // The orientation, a short: 6, which is a quarter to the right.
        exif.extend_from_slice(&[0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0]);
        exif.extend_from_slice(b"at home");
        let length = u16::try_from(exif.len() + 2).expect("short").to_be_bytes();
        let mut with = bytes[..2].to_vec();
        with.extend_from_slice(&[0xff, 0xe1]);
        with.extend_from_slice(&length);
        with.extend_from_slice(&exif);
        with.extend_from_slice(&bytes[2..]);
        with
    }

    #[test]
    fn a_preview_stands_upright_and_tells_nothing_else() {
        let bytes = turned();
        assert!(bytes.windows(7).any(|part| part == b"at home"));

        let picture = look(Cursor::new(bytes), &Limits::default()).expect("a picture");

        assert_eq!(picture.pixels, (20, 40));
        assert_eq!(decoded(&picture).dimensions(), (20, 40));
        let preview = picture.preview.expect("a preview");
        for part in [&b"Exif"[..], b"at home"] {
            assert!(!preview.windows(part.len()).any(|it| it == part));
        }
    }

    #[test]
    fn what_would_take_too_much_has_no_preview() {
        // A page of 400 million points is some 400 KB here and 1.2 GB when it is unpacked.
        let mut bomb = Vec::new();
        let line = vec![0; 20_000];
        let picture: Vec<u8> = line.repeat(2_000);
        PngEncoder::new(&mut bomb)
            .write_image(&picture, 20_000, 2_000, image::ExtendedColorType::L8)
            .expect("written");
        let limits = Limits {
            preview_memory_bytes_max: 30 * 1024 * 1024,
            ..Limits::default()
        };

        let looked = look(Cursor::new(&bomb), &limits).expect("a picture");
        assert_eq!(looked.pixels, (20_000, 2_000));
        assert_eq!(looked.preview, None);

        // The same that says that it is far larger, which its sum no longer fits.
        bomb[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
        assert_eq!(look(Cursor::new(&bomb), &limits), None);
    }

    #[test]
    fn what_is_cut_off_or_no_picture_is_no_trouble() {
        let limits = Limits::default();
        for format in [
            ImageFormat::Jpeg,
            ImageFormat::Png,
            ImageFormat::Gif,
            ImageFormat::WebP,
        ] {
            let bytes = encoded(&red(64, 64), format);
            for length in 0..bytes.len() {
                look(Cursor::new(&bytes[..length]), &limits);
            }
        }
        for none in [&b""[..], b"<svg xmlns='x'/>", b"%PDF-1.7", b"BM      "] {
            assert!(!is_picture(none));
            assert_eq!(look(Cursor::new(none), &limits), None);
        }
    }

    #[test]
    fn a_progressive_jpeg_is_known_by_its_segments() {
        let plain = encoded(&red(8, 8), ImageFormat::Jpeg);
        assert!(!is_progressive(&mut Cursor::new(&plain)));
        assert!(!is_progressive(&mut Cursor::new(turned())));
        let mut progressive = plain;
        let frame = progressive.windows(2).position(|pair| pair == [0xff, 0xc0]);
        progressive[frame.expect("a frame") + 1] = 0xc2;
        assert!(is_progressive(&mut Cursor::new(&progressive)));
        assert!(is_progressive(&mut Cursor::new([0xff, 0xd8])));
    }
}
