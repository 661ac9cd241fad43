// Static programs of the test images, without dependencies.
module pavise.dev/testbed/images

go 1.21
