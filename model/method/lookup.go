package method

// nodeMethods are served by nodes alone: a server binds none of them, but
// carries calls of them.
var nodeMethods = map[string]Spec{NodeLogs.Name: NodeLogs.Spec}

// Lookup returns what a server must know of a method that it does not serve
// itself.
func Lookup(name string) (Spec, bool) {
	s, ok := nodeMethods[name]
	return s, ok
}
