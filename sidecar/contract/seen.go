package contract

// Looked is the first line that `log-bridge look` prints, as JSON: what it looked at. The plugin reads it.
type Looked struct {
	// PID is the first process of the container, as the container that looks sees it; 0 if there is none.
	PID int `json:"pid"`
	// Uid and Gid are the process's effective user and group, Caps its permitted capabilities as in /proc/PID/status.
	Uid  int    `json:"uid"`
	Gid  int    `json:"gid"`
	Caps string `json:"caps"`
	// Denied says that the kernel refuses to show the process's files to the user of `look`.
	Denied bool `json:"denied,omitempty"`
	// Hidden is how many other processes of the container could not be looked into.
	Hidden int `json:"hidden,omitempty"`
	// More says that there are files that are not listed, because there are too many.
	More bool `json:"more,omitempty"`
}

// Seen is each further line: a regular file that a process of the container has open for writing, or that changed lately.
type Seen struct {
	Path string `json:"path"` // as the container sees it
	// Program is the name of a process that has the file open for writing, empty if none has. Append says that it opened it
	// with O_APPEND, ReadWrite with O_RDWR.
	Program   string `json:"program,omitempty"`
	Append    bool   `json:"append,omitempty"`
	ReadWrite bool   `json:"readWrite,omitempty"`
	// Size is in bytes; Grew is by how much it grew while `look` watched, and Rotated how the log rotated meanwhile.
	Size    int64    `json:"size"`
	Grew    int64    `json:"grew,omitempty"`
	Rotated Rotation `json:"rotated,omitempty"`
	// Modified is in seconds since 1970; Mode are the permissions.
	Modified int64   `json:"modified"`
	Uid      uint32  `json:"uid"`
	Gid      uint32  `json:"gid"`
	Mode     uint32  `json:"mode"`
	Content  Content `json:"content"`
}

// Rotation is what happened to the name of a log.
type Rotation string

// The rotations that can be seen in some seconds.
const (
	Renamed   Rotation = "rename"
	Truncated Rotation = "truncate"
)

// Content is what the first bytes of a file look like.
type Content string

// The kinds of content.
const (
	Text       Content = "text"
	Binary     Content = "binary"
	Empty      Content = "empty"
	Unreadable Content = "unreadable"
)

// StatusLine is a line that `log-bridge status` prints: bytes delivered, bytes left, and CONTAINER:PATH as a Go string.
const StatusLine = "%d %d %q\n"
