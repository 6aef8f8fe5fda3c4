extension QCOW2Image {
    package func check(_ repair: ImageRepair) throws(ImageError) -> ImageCheck {
        throw .unsupported("check")
    }
}
