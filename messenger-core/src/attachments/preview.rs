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
/// The longest of what is told about a picture and read, which says how it stands.
const EXIF_BYTES_MAX: u64 = 64 * 1024;
/// What the decoder of a PNG may take for rows and for what is told about the picture, which it keeps or
/// unpacks; and for both at a time.
const PNG_PART_BYTES_MAX: u64 = 2 * 1024 * 1024;
const PNG_PARTS: u64 = 2;
/// Parts of a file that are looked at for what it tells.
const PARTS_MAX: usize = 10_000;
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
    let memory_max = limits.preview_memory_bytes_max;
    let told = match format {
        ImageFormat::Jpeg => of_jpeg(&mut source, length),
        ImageFormat::Png => of_png(&mut source)?,
        ImageFormat::WebP => of_webp(&mut source)?,
        _ => Told::default(),
    };
    // A JPEG is read whole, from a copy where it is far away, and what it tells is copied once more.
    let opening = length.saturating_mul(2).saturating_add(told.copied);
    if format == ImageFormat::Jpeg && opening > memory_max {
        return None;
    }
    source.rewind().ok()?;
    let decoder = decoder(source, format, memory_max)?;
    let (width, height) = decoder.dimensions();
    let orientation = told.exif.as_deref().and_then(Orientation::from_exif_chunk);
    let orientation = orientation.unwrap_or(Orientation::NoTransforms);
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
    let area = (u64::from(width) * u64::from(height)).max(told.area);
    let beside = match format {
        ImageFormat::Jpeg if told.is_progressive => area.saturating_mul(15),
        ImageFormat::Gif | ImageFormat::WebP => area.saturating_mul(4),
        ImageFormat::Png => PNG_PARTS * PNG_PART_BYTES_MAX,
        _ => 0,
    };
    let takes = decoder
        .total_bytes()
        .saturating_add(beside)
        .saturating_add(length)
        .saturating_add(told.copied);
    if takes > memory_max {
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

/// Opens a picture within bounds.
fn decoder<'a>(
    source: impl BufRead + Seek + 'a,
    format: ImageFormat,
    memory_max: u64,
) -> Option<impl ImageDecoder + 'a> {
    let mut bounds = image::Limits::default();
    bounds.max_image_width = Some(SOURCE_SIDE_MAX);
    bounds.max_image_height = Some(SOURCE_SIDE_MAX);
    bounds.max_alloc = Some(match format {
        ImageFormat::Png => PNG_PART_BYTES_MAX,
        // A frame may be larger than the screen.
        _ => memory_max / 2,
    });
    let mut reader = ImageReader::with_format(source, format);
    reader.limits(bounds);
    reader.into_decoder().ok()
}

/// What a file tells about its picture. It is read here and not by the decoders: they take as much memory
/// as it claims to need, whether it is there or not, or copy it as often as they are asked.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    /// What says how the picture stands.
    exif: Option<Vec<u8>>,
    /// Whether a JPEG is told in several scans, each of the whole picture.
    is_progressive: bool,
    /// Bytes that the decoder of a JPEG copies.
    copied: u64,
    /// The largest picture within a WebP, in pixels, which may be larger than what it says of itself.
    area: u64,
}

impl Told {
    /// Keeps what is there of the first that tells how the picture stands, unless it is too long.
    fn keep(&mut self, source: &mut (impl Read + Seek), at: u64, length: u64) {
        if self.exif.is_some() || length > EXIF_BYTES_MAX {
            return;
        }
        let mut exif = Vec::new();
        if source.seek(SeekFrom::Start(at)).is_ok()
            && source.take(length).read_to_end(&mut exif).is_ok()
        {
            let begins = exif.strip_prefix(b"Exif\0\0".as_slice());
            self.exif = Some(begins.map(<[u8]>::to_vec).unwrap_or(exif));
        }
    }
}

fn read_at<const N: usize>(source: &mut (impl Read + Seek), at: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    source.seek(SeekFrom::Start(at)).ok()?;
    source.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// Segments, each with its length after its marker, up to the first scan.
fn of_jpeg(source: &mut (impl Read + Seek), length: u64) -> Told {
    let (mut told, mut at, mut is_known) = (Told::default(), 2, false);
    for _ in 0..PARTS_MAX {
        let Some([0xff, marker, high, low]) = read_at(source, at) else {
            break;
        };
        let size = u64::from(u16::from_be_bytes([high, low]));
        match marker {
            0xc2 | 0xc6 | 0xca | 0xce => break,
            0xc0 | 0xc1 | 0xc3 => is_known = true,
            0xda if is_known => return told,
            0xe0..=0xef | 0xfe => {
                if marker == 0xe1 && read_at(source, at + 4) == Some(*b"Exif\0\0") {
                    told.keep(source, at + 4, size.saturating_sub(2));
                }
                told.copied += size;
            }
            _ => {}
        }
        // Markers may be filled up with more of 0xff.
        at += if marker == 0xff { 1 } else { 2 + size };
    }
    // Told in several scans, between which more may be told, or not understood, which may be the same.
    told.is_progressive = true;
    told.copied = length;
    told
}

/// Chunks, each with its length before its name, up to the first of the picture. `None` if there are so
/// many: the decoder counts what they say, and not what it takes to keep each of them.
fn of_png(source: &mut (impl Read + Seek)) -> Option<Told> {
    let (mut told, mut at) = (Told::default(), 8);
    for _ in 0..PARTS_MAX {
        let Some([a, b, c, d, name @ ..]) = read_at::<8>(source, at) else {
            return Some(told);
        };
        let size = u64::from(u32::from_be_bytes([a, b, c, d]));
        match &name {
            b"eXIf" => told.keep(source, at + 8, size),
            b"IDAT" => return Some(told),
            _ => {}
        }
        at += 12 + size;
    }
    None
}

/// Chunks, each with its length after its name; frames have some of their own. `None` if there are so many
/// that some were not looked at.
fn of_webp(source: &mut (impl Read + Seek)) -> Option<Told> {
    let (mut told, mut at) = (Told::default(), 12);
    for _ in 0..PARTS_MAX {
        let Some((name, size)) = webp_chunk(source, at) else {
            return Some(told);
        };
        match &name {
            b"EXIF" => told.keep(source, at + 8, size),
            b"VP8 " => told.area = told.area.max(webp_area(source, at + 8)),
            b"ANMF" => {
                // What shines through, perhaps, and the picture.
                let mut at = at + 24;
                for _ in 0..2 {
                    let Some((name, size)) = webp_chunk(source, at) else {
                        break;
                    };
                    if &name == b"VP8 " {
                        told.area = told.area.max(webp_area(source, at + 8));
                    }
                    at += 8 + size + size % 2;
                }
            }
            _ => {}
        }
        at += 8 + size + size % 2;
    }
    None
}

fn webp_chunk(source: &mut (impl Read + Seek), at: u64) -> Option<([u8; 4], u64)> {
    let [a, b, c, d, size @ ..] = read_at::<8>(source, at)?;
    Some(([a, b, c, d], u32::from_le_bytes(size).into()))
}

/// The size of a picture that begins there, by itself.
fn webp_area(source: &mut (impl Read + Seek), at: u64) -> u64 {
    let Some([a, b, c, d]) = read_at(source, at + 6) else {
        return 0;
    };
    let side = |pair| u64::from(u16::from_le_bytes(pair) & 0x3fff);
    side([a, b]) * side([c, d])
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
        let told = |bytes: &[u8]| of_jpeg(&mut Cursor::new(bytes), bytes.len() as u64);
        let plain = encoded(&red(8, 8), ImageFormat::Jpeg);
        assert!(!told(&plain).is_progressive);
        assert!(!told(&turned()).is_progressive);
        let mut progressive = plain;
        let frame = progressive.windows(2).position(|pair| pair == [0xff, 0xc0]);
        progressive[frame.expect("a frame") + 1] = 0xc2;
        assert!(told(&progressive).is_progressive);
        assert!(told(&[0xff, 0xd8]).is_progressive);
    }

    /// What says that a picture is to be turned a quarter to the right, and is so long.
    fn quarter(length: usize) -> Vec<u8> {
        let mut exif = b"MM\0*\0\0\0\x08\0\x01".to_vec();
        exif.extend_from_slice(&[0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0]);
        exif.resize(length, 0);
        exif
    }

    fn webp(parts: &[(&[u8; 4], &[u8], usize)]) -> Vec<u8> {
        let mut bytes = b"WEBP".to_vec();
        for (name, content, claimed) in parts {
            bytes.extend_from_slice(*name);
            bytes.extend_from_slice(&u32::try_from(*claimed).expect("short").to_le_bytes());
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(2), 0);
        }
        let length = u32::try_from(bytes.len()).expect("short").to_le_bytes();
        [b"RIFF".as_slice(), &length, &bytes].concat()
    }

    #[test]
    fn a_webp_tells_how_it_stands_and_no_more_than_it_may() {
        let plain = encoded(&red(40, 20), ImageFormat::WebP);
        let picture = &plain[20..];
        // Something is told of it; 40 wide, 20 high.
        let says = [0x08, 0, 0, 0, 39, 0, 0, 19, 0, 0];

        for (length, claimed, pixels) in [
            (64, 64, (20, 40)),
            (65_536, 65_536, (20, 40)),
            // As much as it claims and too much, and far more than there is.
            (65_538, 65_538, (40, 20)),
            (64, 0xffff_fff0, (40, 20)),
        ] {
            let exif = quarter(length);
            let bytes = webp(&[
                (b"VP8X", &says, 10),
                (b"VP8L", picture, picture.len()),
                (b"EXIF", &exif, claimed),
            ]);
            let told = of_webp(&mut Cursor::new(&bytes)).expect("few parts");
            assert_eq!(told.exif.is_some(), pixels == (20, 40), "{claimed}");
            let picture = look(Cursor::new(bytes), &Limits::default()).expect("a picture");
            assert_eq!(picture.pixels, pixels, "{claimed}");
            assert_eq!(decoded(&picture).dimensions(), pixels, "{claimed}");
        }
    }

    #[test]
    fn a_webp_that_hides_a_larger_picture_takes_what_that_takes() {
        let says = [0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        // One point by its head; its picture is 16,383 wide and high.
        let huge = [0x10, 0, 0, 0x9d, 0x01, 0x2a, 0xff, 0x3f, 0xff, 0x3f];
        let frame = webp(&[(b"VP8 ", &huge, huge.len())]);
        let frame = [&[0; 16], &frame[12..]].concat();
        for bytes in [
            webp(&[(b"VP8X", &[0; 10], 10), (b"VP8 ", &huge, huge.len())]),
            webp(&[
                (b"VP8X", &says, 10),
                (b"ANIM", &[0; 6], 6),
                (b"ANMF", &frame, frame.len()),
            ]),
        ] {
            let told = of_webp(&mut Cursor::new(&bytes)).expect("few parts");
            assert_eq!(told.area, 16_383 * 16_383);

            let picture = look(Cursor::new(bytes), &Limits::default());

            let expected = Picture {
                pixels: (1, 1),
                preview: None,
            };
            assert_eq!(picture, Some(expected));
        }
        let many = vec![(b"XXXX", b"".as_slice(), 0); PARTS_MAX];
        assert_eq!(look(Cursor::new(webp(&many)), &Limits::default()), None);
    }

    #[test]
    fn what_a_png_tells_is_unpacked_and_kept_within_bounds() {
        let with_colours = |length: usize| {
            let mut bytes = Vec::new();
            let mut encoder = PngEncoder::new(&mut bytes);
            encoder.set_icc_profile(vec![0; length]).expect("taken");
            encoder.set_exif_metadata(quarter(64)).expect("taken");
            let picture = [7; 40 * 20];
            encoder
                .write_image(&picture, 40, 20, image::ExtendedColorType::L8)
                .expect("written");
            bytes
        };
        for (length, is_unpacked) in [(100_000, true), (8 << 20, false)] {
            let bytes = with_colours(length);
            assert!(bytes.len() < 50_000);
            let opened = decoder(Cursor::new(&bytes), ImageFormat::Png, 44 << 20);
            let profile = opened.expect("a picture").icc_profile().expect("read");
            assert_eq!(profile.is_some(), is_unpacked, "{length}");

            let picture = look(Cursor::new(bytes), &Limits::default()).expect("a picture");
            assert_eq!(picture.pixels, (20, 40));
            assert!(picture.preview.is_some());
        }

        // Texts that are kept as they are.
        let plain = with_colours(1);
        let (few, many) = (PARTS_MAX / 2, PARTS_MAX);
        for (texts, length, is_taken) in [
            (1, 500_000, true),
            (1, 3 << 20, false),
            (few, 6, true),
            (many, 6, false),
        ] {
            let mut text = b"tEXtnote\0".to_vec();
            text.resize(4 + length, b'x');
            let mut bytes = plain[..33].to_vec();
            for _ in 0..texts {
                bytes.extend_from_slice(&u32::try_from(length).expect("short").to_be_bytes());
                bytes.extend_from_slice(&text);
                bytes.extend_from_slice(&crc(&text).to_be_bytes());
            }
            bytes.extend_from_slice(&plain[33..]);
            let picture = look(Cursor::new(bytes), &Limits::default());
            assert_eq!(picture.is_some(), is_taken, "{texts} of {length}");
        }
    }

    /// The sum at the end of each chunk of a PNG.
    fn crc(bytes: &[u8]) -> u32 {
        let sum = bytes.iter().fold(u32::MAX, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| match sum & 1 {
                1 => 0xedb8_8320 ^ (sum >> 1),
                _ => sum >> 1,
            })
        });
        !sum
    }

    #[test]
    fn what_a_jpeg_tells_counts_as_it_is_copied() {
        let plain = turned();
        let mut bytes = plain[..2].to_vec();
        for _ in 0..40 {
            bytes.extend_from_slice(&[0xff, 0xe2, 0xff, 0xff]);
            bytes.extend_from_slice(&[0; 65_533]);
        }
        bytes.extend_from_slice(&plain[2..]);
        let length = bytes.len() as u64;
        let told = of_jpeg(&mut Cursor::new(&bytes), length);
        let copied = told.copied;
        assert!(copied > 40 * 65_535 && copied < length);
        assert!(told.exif.is_some() && !told.is_progressive);

        let least = 2 * length + copied;
        for (memory, is_taken) in [(least, true), (least - 1, false)] {
            let limits = Limits {
                preview_memory_bytes_max: memory,
                ..Limits::default()
            };
            let picture = look(Cursor::new(&bytes), &limits);
            let pixels = picture.map(|picture| picture.pixels);
            assert_eq!(pixels, is_taken.then_some((20, 40)), "{memory}");
        }
    }
}
