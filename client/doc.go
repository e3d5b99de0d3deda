// Package client is one node: it registers with the servers of its region, says
// that it lives, asks for its allocations and runs their tasks.
//
// The way of an allocation:
//
//	puller       a blocking query tells what should run here
//	allocRunner  one an allocation: directories, its tasks, what they amount to
//	taskRunner   one a task: start, wait, restart or end, by its driver
//	reporter     what became of them, to the servers in batches
//
// What a node must know to find its tasks again is on disk before it acts: an
// attempt is written down before its driver is called, its handle after. A
// restarted node takes its tasks up again before it speaks to anybody, and goes
// on running them while no server answers. It stops nothing because something
// is absent from an answer that is older than what it knows.
//
// Every allocRunner and taskRunner has one goroutine, the node a handful more;
// all belong to the group of Client.Run, which returns when they have ended. The
// package knows drivers by their contract only.
package client
