// Package forgetfs is a disk for tests that can lose its power: a FUSE file
// system in memory that forgets what was not synced.
//
// A killed process leaves its writes in the kernel's page cache, so that a test
// which only kills cannot tell whether anything was synced. Here every file and
// every directory has two images. What is written goes to the one that is read;
// fsync and fdatasync copy it to the one that lasts. A directory's names, made,
// renamed or removed, last once the directory itself was synced, as POSIX has
// it: what some file systems do beyond that, Atoll must not need.
//
// When the power goes, a real disk may have written any part of what it was not
// asked to sync. So of a file's unsynced sectors some survive, and of a
// directory's unsynced changes the first few, in their order. A sector, of 512
// bytes, is there whole or not at all.
//
// The package knows nothing of Atoll and is imported by tests alone. It mounts
// on Linux, as root, where /dev/fuse can be opened. Mount's goroutines end with
// the unmount that it returns.
package forgetfs
