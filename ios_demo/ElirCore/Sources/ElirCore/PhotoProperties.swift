/// What a photograph's file says of when, where and with what it was taken, for the file of the restored one.
///
/// ImageIO reads it from files of every kind and writes it, as dictionaries in a dictionary, under the names below. Kept are
/// the tags that `elir_mobile/metadata.py` keeps: not what describes the stored pixels, which is over once they are read.
/// So the place goes wherever the restored file goes; the app's README says so.
/// A thumbnail is not among the dictionaries, and so it does not outlive the pixels either.

/// Of the first directory of EXIF.
private let tiff = "{TIFF}"
private let exif = "{Exif}"
private let orientation = "Orientation"
/// Dictionaries that are kept as they are: place, lens, and the maker's notes of an iPhone.
private let keptWhole = ["{GPS}", "{ExifAux}", "{MakerApple}"]
/// Pixels in an inch, beside the dictionaries.
private let resolution = ["DPIWidth", "DPIHeight"]
private let tiffLeft = [
    orientation, "Compression", "PhotometricInterpretation", "TransferFunction", "WhitePoint", "PrimaryChromaticities",
    "TileWidth", "TileLength",
]
/// ImageIO writes the colour space of what is saved.
private let exifLeft = ["ColorSpace", "PixelXDimension", "PixelYDimension"]

/// Of `properties`, as ImageIO reads them, what a file of the restored picture gets, which has `width`×`height` upright
/// pixels.
public func keptProperties(_ properties: [String: Any], width: Int, height: Int) -> [String: Any] {
    var kept = properties.filter { keptWhole.contains($0.key) || resolution.contains($0.key) }
    kept[orientation] = 1
    for (name, left) in [(tiff, tiffLeft), (exif, exifLeft)] {
        guard let tags = properties[name] as? [String: Any] else { continue }
        kept[name] = tags.filter { !left.contains($0.key) }
    }
    guard var about = kept[exif] as? [String: Any] else { return kept }
    about["PixelXDimension"] = width
    about["PixelYDimension"] = height
    kept[exif] = about
    return kept
}
